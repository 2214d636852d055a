//! The `caracal-cni` plugin binary.
fn main() {}
