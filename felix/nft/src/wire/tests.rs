//! The decoders take any bytes; the encoders are their inverse.

use proptest::prelude::*;

use super::{Attributes, Writer, messages};
use crate::conntrack::{Discriminator, Flow, Tuple};
use crate::expr::Rule;
use crate::object::{Chain, CounterValue, TableInfo};
use crate::set::{DataType, ElementReader, Key, MapData, Set, write_element};

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for message in messages(&bytes) {
            let _ = message.netfilter();
        }
        let attributes = Attributes(&bytes);
        let _ = Rule::read(attributes);
        let _ = Set::read(attributes);
        let _ = Chain::read(attributes);
        let _ = TableInfo::read(attributes);
        let _ = CounterValue::read(attributes);
        let _ = Flow::read(attributes);
        for interval in [true, false] {
            let mut reader = ElementReader::default();
            let _ = reader.read(attributes, interval);
            reader.finish();
        }
    }

    #[test]
    fn a_damaged_rule_never_panics(at in 0_usize..400, byte in any::<u8>()) {
        let mut bytes = sample_rule();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Rule::read(Attributes(&bytes));
    }

    #[test]
    fn ranges_survive_their_netlink_form(cuts in proptest::collection::btree_set(any::<u16>(), 0..20)) {
        let cuts: Vec<u16> = cuts.into_iter().collect();
        let keys: Vec<Key> = cuts
            .chunks_exact(2)
            .map(|pair| Key::Range {
                first: pair[0].to_be_bytes().to_vec(),
                last: pair[1].to_be_bytes().to_vec(),
            })
            .collect();
        let mut writer = Writer::default();
        for key in &keys {
            write_element(key, None, &mut writer);
        }
        let bytes = writer.into_bytes();
        let mut reader = ElementReader::default();
        reader.read(Attributes(&bytes), true).unwrap();
        prop_assert_eq!(reader.finish().into_keys().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn tuples_survive_their_netlink_form(
        v6 in any::<bool>(),
        addresses in any::<(u128, u128)>(),
        protocol in any::<u8>(),
        numbers in any::<(u16, u16)>(),
        icmp in any::<bool>(),
    ) {
        let address = |bits: u128| match v6 {
            true => std::net::Ipv6Addr::from(bits).into(),
            false => std::net::Ipv4Addr::from(bits as u32).into(),
        };
        let tuple = Tuple {
            source: address(addresses.0),
            destination: address(addresses.1),
            protocol,
            discriminator: match icmp {
                true => Discriminator::Icmp { kind: numbers.0 as u8, code: 0, id: numbers.1 },
                false => Discriminator::Ports { source: numbers.0, destination: numbers.1 },
            },
        };
        let mut writer = Writer::default();
        tuple.write(&mut writer);
        prop_assert_eq!(Tuple::read(Attributes(&writer.into_bytes())), Some(tuple));
    }

    #[test]
    fn set_types_survive_their_netlink_form(
        interval in any::<bool>(),
        map in 0_u8..3,
        fields in proptest::collection::vec(0_usize..8, 1..5),
    ) {
        const KINDS: [DataType; 8] = [
            DataType::Ipv4Addr, DataType::Ipv6Addr, DataType::InetProto, DataType::InetService,
            DataType::Mark, DataType::CtState, DataType::Icmpv6Type, DataType::IfName,
        ];
        let set = Set {
            name: "s".to_owned(),
            key: fields.into_iter().map(|n| KINDS[n]).collect(),
            data: match map {
                0 => None,
                1 => Some(MapData::Verdict),
                _ => Some(MapData::Value(DataType::Mark)),
            },
            interval,
        };
        let mut writer = Writer::default();
        set.write("t", 1, &mut writer);
        prop_assert_eq!(Set::read(Attributes(&writer.into_bytes())).unwrap(), Some(set));
    }
}

fn sample_rule() -> Vec<u8> {
    use crate::expr::{Expr, LookupResult, MetaKey, Register, Verdict};
    let rule = Rule {
        expressions: vec![
            Expr::Meta {
                key: MetaKey::Mark,
                to: Register::FIRST,
            },
            Expr::Bitwise {
                from: Register::FIRST,
                to: Register::FIRST,
                mask: vec![0; 4],
                xor: vec![0; 4],
            },
            Expr::Lookup {
                set: "cells".to_owned(),
                from: Register::FIRST,
                result: LookupResult::Value(Register::FIRST.plus(4)),
            },
            Expr::CounterRef {
                name: "drops".to_owned(),
            },
            Expr::Verdict(Verdict::Goto("elsewhere".to_owned())),
        ],
        comment: Some("a comment".to_owned()),
    };
    let mut writer = Writer::default();
    rule.write("t", "c", &mut writer);
    let bytes = writer.into_bytes();
    let read = Rule::read(Attributes(&bytes)).unwrap();
    assert_eq!(read, ("c".to_owned(), rule));
    bytes
}
