//! The body of a ROUTE-REFRESH: read back as written, but for filters that nobody here reads.
#![no_main]

use caracal_bgp_core::wire::MessageType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match caracal_fuzz::control(MessageType::RouteRefresh, body) {
        Some(message) => caracal_fuzz::reads_back(&message),
        None => assert!(body.len() != 4),
    }
});
