//! BMP messages: what our reader takes is written again, and read back as the same.
#![no_main]

use bytes::BytesMut;
use caracal_bgp_core::bmp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(message)) = bmp::decode(&mut buffer) {
        let mut octets = BytesMut::new();
        message.encode(&mut octets);
        assert_eq!(bmp::decode(&mut octets), Ok(Some(message)));
        assert!(octets.is_empty());
    }
});
