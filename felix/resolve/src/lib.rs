//! From resources to what one speaker has to do.
