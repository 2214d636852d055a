//! The controller: grants and reclaims blocks.
