//! Text from a peer, made safe for logs and terminals.

use std::fmt::Write;

/// `octets` as text in which only text is left as it is: octets that are not UTF-8, control
/// characters, and characters that would reorder what stands around them are shown as escapes.
pub fn printable(octets: &[u8]) -> String {
    let mut shown = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' || reorders(character) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for octet in chunk.invalid() {
            write!(shown, "\\x{octet:02x}").expect("a String takes what is written to it");
        }
    }
    shown
}

/// Marks, embeddings, overrides and isolates of bidirectional text.
fn reorders(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_shown_as_it_is() {
        const CASES: &[(&[u8], &str)] = &[
            ("[T-1] Grüße, 2 h 🐈".as_bytes(), "[T-1] Grüße, 2 h 🐈"),
            (b"two\r\nlines\x1b[31m\0", r"two\r\nlines\u{1b}[31m\u{0}"),
            (b"\xc3\x28 \xff", r"\xc3( \xff"),
            // An overlong form of '/' is not UTF-8 (RFC 9003 §2, shortest form).
            (b"\xc0\xaf", r"\xc0\xaf"),
            (r"\xff".as_bytes(), r"\\xff"),
            ("a\u{202e}b".as_bytes(), r"a\u{202e}b"),
        ];
        for (octets, shown) in CASES {
            assert_eq!(printable(octets), *shown);
        }
    }
}
