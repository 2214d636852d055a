//! Hashes of content that are the same in every process.
//!
//! Numbers of identities and classes are derived from what they stand for, so that an agent that
//! restarts arrives at the numbers the kernel already holds. The standard library's hashers promise no
//! such thing across versions, hence FNV-1a with a final mix.

/// Accumulates content into a fingerprint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    pub(super) fn new() -> Self {
        Self(Self::OFFSET_BASIS)
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        for byte in number.to_le_bytes() {
            self.byte(byte);
        }
        self
    }

    /// Adds a text with its length, so that "ab","c" and "a","bc" differ.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        for byte in text.bytes() {
            self.byte(byte);
        }
        self
    }

    /// The fingerprint, all of whose bits depend on all of the content: FNV alone leaves the high bits
    /// of short inputs alike (finaliser of MurmurHash3).
    pub(super) fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(Self::PRIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_do_not_change_between_versions() {
        // Pinned: a change here renumbers every class and identity on upgrade.
        assert_eq!(
            Fingerprint::new().text("web").number(80).finish(),
            5_787_445_696_076_396_387
        );
    }

    #[test]
    fn field_borders_matter() {
        let mut one = Fingerprint::new();
        let mut other = Fingerprint::new();
        assert_ne!(
            one.text("ab").text("c").finish(),
            other.text("a").text("bc").finish()
        );
    }
}
