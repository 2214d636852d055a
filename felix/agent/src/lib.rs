//! The node agent: watches, endpoints, CNI server, policy and status.
