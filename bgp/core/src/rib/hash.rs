//! Hashing with a seed from outside: peers choose what is hashed, and must not be able to choose
//! what collides.

use std::hash::BuildHasher;

use foldhash::SharedSeed;
use foldhash::fast::{FoldHasher, SeedableRandomState};

/// Makes hashers that agree with each other and with nobody else's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl BuildHasher for Seed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        SeedableRandomState::with_seed(self.0, SharedSeed::global_fixed()).build_hasher()
    }
}
