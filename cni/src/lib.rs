//! The CNI plugin and its protocol with the agent.
