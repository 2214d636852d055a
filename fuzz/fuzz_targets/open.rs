//! The body of an OPEN: what is accepted is written and read back as the same.
#![no_main]

use caracal_bgp_core::types::Family;
use caracal_bgp_core::wire::{HEADER_LEN, MAX_MESSAGE_LEN, Message, MessageType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(Message::Open(open)) = caracal_fuzz::control(MessageType::Open, body) else {
        return;
    };
    for family in Family::ALL {
        let _ = open.add_path(family);
    }
    let _ = (
        open.families(),
        open.roles().count(),
        open.long_lived_restart(),
    );
    let _ = (open.extended_next_hop(), open.four_octet_as());
    // Longer ones do not come off a connection (RFC 8654 §4).
    if body.len() <= MAX_MESSAGE_LEN - HEADER_LEN {
        caracal_fuzz::reads_back(&Message::Open(open));
    }
});
