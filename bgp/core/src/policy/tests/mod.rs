//! Policies by example, and by comparison with an evaluator written without any of their
//! machinery.

mod examples;
mod naive;
mod property;
