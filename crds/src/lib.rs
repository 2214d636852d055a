//! Custom resources of caracal.dev.
