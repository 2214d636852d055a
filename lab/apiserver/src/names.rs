//! Rules for object names, and the making of generated ones.

use crate::resource::NameRule;

/// Letters of generated name suffixes: no vowels, so that no words come out.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of generated suffixes.
pub const SUFFIX_LENGTH: usize = 5;
/// Longest base of a generated name: a longer `generateName` is cut.
const MAX_BASE: usize = 63 - SUFFIX_LENGTH;

/// Why a name is not acceptable, if it is not.
#[must_use]
pub fn check(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain => (!is_subdomain(name)).then_some(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        NameRule::Label => (!is_label(name)).then_some(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        NameRule::Label1035 => {
            let fits = is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
            (!fits).then_some(
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                 start with an alphabetic character, and end with an alphanumeric character",
            )
        }
    }
}

/// RFC 1123 label: up to 63 of `a-z0-9-`, alphanumeric at both ends.
#[must_use]
pub fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len()) && is_label_shape(name)
}

fn is_label_shape(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte))
}

/// RFC 1123 subdomain: up to 253 characters of labels with dots between.
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.split('.').all(is_label_shape)
}

/// Whether a label or annotation key has the shape `[prefix/]name`.
#[must_use]
pub fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Whether a text is a label value: empty, or up to 63 of `A-Za-z0-9-_.`, alphanumeric at the ends.
#[must_use]
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    value.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A name from `generateName` and random bits.
#[must_use]
pub fn generate(base: &str, mut random: u64) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for _ in 0..SUFFIX_LENGTH {
        let letters = SUFFIX_ALPHABET.len() as u64;
        let letter = usize::try_from(random % letters).unwrap_or_default();
        name.push(char::from(SUFFIX_ALPHABET[letter]));
        random /= letters;
    }
    name
}

/// A source of identifiers: deterministic from its seed, so that runs can be repeated.
#[derive(Debug)]
pub struct Identifiers {
    state: u64,
}

impl Identifiers {
    /// A source from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits (splitmix64).
    pub fn next_bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// The next UID, a version 4 UUID.
    pub fn next_uid(&mut self) -> String {
        let bits = (u128::from(self.next_bits()) << 64) | u128::from(self.next_bits());
        uuid::Builder::from_random_bytes(bits.to_be_bytes())
            .into_uuid()
            .to_string()
    }
}
