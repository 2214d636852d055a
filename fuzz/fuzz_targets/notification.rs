//! The body of a NOTIFICATION: it is shown without a control character, and read back as written.
#![no_main]

use caracal_bgp_core::wire::{Message, MessageType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(message) = caracal_fuzz::control(MessageType::Notification, body) else {
        assert!(body.len() < 2);
        return;
    };
    let Message::Notification(notification) = &message else {
        panic!("{message:?}");
    };
    let shown = notification.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let _ = (notification.exceeded_limit(), notification.inner());
    if body.len() < 4000 {
        caracal_fuzz::reads_back(&message);
    }
});
