//! BGP messages, sessions and routes as pure state machines.
