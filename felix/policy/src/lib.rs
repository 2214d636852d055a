//! NetworkPolicy compiled to identities, classes and cells.
