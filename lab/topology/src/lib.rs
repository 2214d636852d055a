//! containerlab topology files, address and AS plans.
