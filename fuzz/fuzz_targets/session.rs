//! A session that is fed arbitrary octets and events: framing, decoding and the peer machine together.
#![no_main]

use caracal_fuzz::session::Harness;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((first, steps)) = input.split_first() {
        Harness::new(first & 1 != 0).run(steps);
    }
});
