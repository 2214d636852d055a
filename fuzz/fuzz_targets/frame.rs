//! Octets of a connection, in pieces: framing neither depends on how they are cut nor goes on after
//! an error.
#![no_main]

use bytes::BytesMut;
use caracal_bgp_core::wire::{self, Frame, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};
use libfuzzer_sys::fuzz_target;

fn frames(octets: &[u8], piece: usize, max_len: usize) -> (Vec<Frame>, bool) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in octets.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match wire::frame(&mut buffer, max_len) {
                Ok(Some(frame)) => {
                    assert!(wire::HEADER_LEN + frame.body.len() <= max_len);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, true)
}

fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else {
        return;
    };
    let max_len = if first & 1 == 0 {
        MAX_MESSAGE_LEN
    } else {
        MAX_EXTENDED_LEN
    };
    let piece = usize::from(first >> 1);
    let whole = frames(octets, octets.len(), max_len);
    assert_eq!(frames(octets, piece, max_len), whole);
});
