//! Pools, blocks and addresses as pure machines.
