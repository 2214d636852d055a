//! The four kinds of patches.
//!
//! Owns the patch algorithms on untyped values; what a patch may touch is [`crate::crud`]'s.

pub mod apply;
pub mod json;
pub mod merge;
pub mod strategic;

/// Kind of a patch, by media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes strategic merge patch.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// Media types of patches.
pub const MEDIA_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl Kind {
    /// From a media type without parameters.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/merge-patch+json" => Self::Merge,
            "application/json-patch+json" => Self::Json,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            _ => return None,
        })
    }
}
