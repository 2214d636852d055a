//! Expressions of filters over AS paths: what is taken can be asked of any path without growing, and a
//! shortcut answers as the expression that it stands for.
//!
//! The first octet is the number of AS numbers, of four octets each; the rest is the expression.
#![no_main]

use caracal_bgp_core::policy::AsPathPattern;
use caracal_bgp_core::types::Asn;
use caracal_bgp_core::wire::AsPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else {
        return;
    };
    let (path, text) = rest.split_at((usize::from(count % 32) * 4).min(rest.len()));
    let path: AsPath = path
        .chunks_exact(4)
        .map(|octets| Asn(u32::from_be_bytes(octets.try_into().expect("four octets"))))
        .collect();
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok(pattern) = AsPathPattern::new(text) else {
        return;
    };
    assert_eq!(pattern.as_str(), text);
    // In a group of its own the expression means the same, and there is no shortcut for it.
    if let Ok(general) = AsPathPattern::new(&format!("(?:{text})")) {
        assert_eq!(pattern.is_match(&path), general.is_match(&path));
    }
});
