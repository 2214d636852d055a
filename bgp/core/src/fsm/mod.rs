//! The session with one peer as a state machine.
