//! MRT records: what our reader takes is written again, and read back as the same.
#![no_main]

use bytes::BytesMut;
use caracal_bgp_core::mrt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(record)) = mrt::decode(&mut buffer) {
        let mut octets = BytesMut::new();
        if record.encode(&mut octets).is_err() {
            continue;
        }
        assert_eq!(mrt::decode(&mut octets), Ok(Some(record)));
        assert!(octets.is_empty());
    }
});
