//! The body of an UPDATE on any kind of session: what is taken is written and read back as the same,
//! and what is treated as withdrawn names prefixes that could be read.
#![no_main]

use bytes::BytesMut;
use caracal_bgp_core::wire::{
    self, DecodeContext, MAX_EXTENDED_LEN, Update, UpdateOutcome, decode_update,
};
use caracal_fuzz::Terms;
use libfuzzer_sys::fuzz_target;

/// Everything in `octets`, as one UPDATE.
fn folded(mut octets: BytesMut, context: &DecodeContext) -> Update {
    let mut folded = Update::default();
    while let Some(frame) = wire::frame(&mut octets, MAX_EXTENDED_LEN).expect("well-formed") {
        let UpdateOutcome::Valid(part) = decode_update(&frame.body, context) else {
            panic!("what we write is not valid: {:02x?}", frame.body);
        };
        for reach in part.reach {
            match folded.reach.last_mut() {
                Some(last) if last.family == reach.family && last.next_hop == reach.next_hop => {
                    last.nlri.extend(reach.nlri);
                }
                _ => folded.reach.push(reach),
            }
        }
        for (family, nlri) in part.withdrawn {
            match folded.withdrawn.last_mut() {
                Some((last, all)) if *last == family => all.extend(nlri),
                _ => folded.withdrawn.push((family, nlri)),
            }
        }
        folded.attributes = part.attributes.or(folded.attributes);
        folded.end_of_rib = part.end_of_rib.or(folded.end_of_rib);
    }
    assert!(octets.is_empty());
    folded
}

/// Runs of one family with one next hop joined, as packing does.
fn joined(mut update: Update) -> Update {
    let reach = std::mem::take(&mut update.reach);
    for run in reach {
        match update.reach.last_mut() {
            Some(last) if last.family == run.family && last.next_hop == run.next_hop => {
                last.nlri.extend(run.nlri);
            }
            _ => update.reach.push(run),
        }
    }
    let withdrawn = std::mem::take(&mut update.withdrawn);
    for (family, nlri) in withdrawn {
        match update.withdrawn.last_mut() {
            Some((last, all)) if *last == family => all.extend(nlri),
            _ => update.withdrawn.push((family, nlri)),
        }
    }
    update
}

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let terms = Terms(*first);
    let context = terms.decode();
    let update = match decode_update(body, &context) {
        UpdateOutcome::Valid(update) | UpdateOutcome::ValidWithDiscards { update, .. } => update,
        UpdateOutcome::TreatAsWithdraw { withdrawn, reason } => {
            assert!(!reason.to_string().is_empty());
            assert!(!withdrawn.is_empty() || body.len() > 4);
            return;
        }
        UpdateOutcome::Reset(notification) => {
            assert_eq!(notification.error.codes().0, 3);
            return;
        }
    };
    assert_eq!(update.attributes.is_some(), !update.reach.is_empty());
    let mut octets = BytesMut::new();
    if wire::encode_update(&update, terms.encode(), &mut octets).is_err() {
        // Attributes that filled a message of a two-octet peer take more with four.
        assert!(body.len() > 20_000);
        return;
    }
    let again = DecodeContext {
        four_octet_as: true,
        ..context
    };
    let again = folded(octets, &again);
    let update = joined(update);
    assert_eq!(again.reach, update.reach);
    assert_eq!(again.withdrawn, update.withdrawn);
    assert_eq!(again.end_of_rib, update.end_of_rib);
    // Where they would not fit otherwise, attributes that only inform are left out.
    if body.len() < 20_000 {
        assert_eq!(again.attributes, update.attributes);
    }
});
