//! The BGP speaker: sockets, timers and tasks around the pure machines.
