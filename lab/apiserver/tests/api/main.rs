//! What the server promises to clients, item by item; each test is named by its number in the
//! list of API server behaviours that clients of the project rely on.
//!
//! The tests that take a [`harness::Server`] run against the embedded server always, and against
//! a real one as well when `KUBECONFIG` or `KUBEBUILDER_ASSETS` names one.

mod clients;
mod crud;
mod definitions;
mod faults;
mod harness;
mod kubectl;
mod machinery;
mod patches;
mod real;
mod subresources;
mod tables;
mod transport;
mod watches;
