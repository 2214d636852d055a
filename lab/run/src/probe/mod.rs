//! Probes: what the data plane really does, measured from inside the namespaces.

pub mod capture;
pub mod connect;
pub mod flow;
pub mod matrix;
