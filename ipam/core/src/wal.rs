//! The node's write-ahead log: one line per step, each with its checksum.
//!
//! Owns: the format. Does not own: the file, which lies on tmpfs and so ends with a reboot.
//!
//! ```text
//! caracal-ipam-wal 1
//! 5f3a01bc {"op":"assign",…}
//! ```
//!
//! A record is one write that ends in a newline. A last line without one was torn by a crash: its
//! step was never answered, so it is dropped. Any other damage means that a step which was
//! answered is lost, and then the log must not be believed at all.

use serde::{Deserialize, Serialize};

use crate::{AddressPair, AttachmentKey, BlockId, Error, Moment};

/// First line of a log.
pub const HEADER: &str = "caracal-ipam-wal 1";

/// One step of the allocator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Record {
    /// Addresses are about to be given to an attachment.
    Assign {
        /// The attachment.
        key: AttachmentKey,
        /// UID of its pod.
        pod_uid: String,
        /// Where the addresses come from.
        block: BlockId,
        /// Position in the block.
        position: u32,
        /// The addresses there.
        addresses: AddressPair,
        /// Path of the network namespace, to see later whether it is gone.
        netns: String,
    },
    /// The attachment is gone; its addresses rest.
    Free {
        /// The attachment.
        key: AttachmentKey,
        /// Block of its addresses.
        block: BlockId,
        /// Position in the block.
        position: u32,
        /// Until when they rest.
        until: Moment,
    },
    /// An attachment was deleted that was never seen; its ADD, if it comes late, is refused.
    Tombstone {
        /// The attachment.
        key: AttachmentKey,
        /// Until when.
        until: Moment,
    },
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Whole records in order.
    pub records: Vec<Record>,
    /// Length of the readable part in bytes: what follows is a torn record, to be cut off before
    /// the next one is appended.
    pub length: usize,
}

/// The first line of a new log, with its newline.
pub fn header() -> String {
    format!("{HEADER}\n")
}

/// The line of a record, with its newline.
pub fn encode(record: &Record) -> String {
    let json = serde_json::to_string(record).expect("a record has string keys and plain values");
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

/// Reads a log.
///
/// # Errors
/// When a whole line is damaged, or the format is another one.
pub fn decode(bytes: &[u8]) -> Result<Log, Error> {
    let mut log = Log::default();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let Some(first) = lines.next() else {
        return Ok(log);
    };
    if !first.ends_with(b"\n") && header().as_bytes().starts_with(first) {
        return Ok(log); // torn before the first record
    }
    if first != header().as_bytes() {
        let found = String::from_utf8_lossy(&first[..first.len().min(64)])
            .trim_end()
            .to_owned();
        return Err(Error::UnknownLogFormat {
            found,
            expected: HEADER,
        });
    }
    log.length = first.len();
    for (index, line) in lines.enumerate() {
        let Some(body) = line.strip_suffix(b"\n") else {
            break;
        };
        let record = record(body).ok_or(Error::DamagedLog { record: index + 1 })?;
        log.records.push(record);
        log.length += line.len();
    }
    Ok(log)
}

fn record(line: &[u8]) -> Option<Record> {
    let (checksum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    if crc32c::crc32c(json) != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> AttachmentKey {
        AttachmentKey {
            container_id: format!("c{n}"),
            interface: "eth0".to_owned(),
        }
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let block = BlockId {
            pool: "pool".into(),
            index: 3,
        };
        let record = (0_u8..3, any::<u8>(), any::<u32>(), any::<u64>(), ".*").prop_map(
            move |(op, n, position, until, text)| match op {
                0 => Record::Assign {
                    key: key(n),
                    pod_uid: text,
                    block: block.clone(),
                    position,
                    addresses: AddressPair {
                        ipv4: Some(position.into()),
                        ipv6: None,
                    },
                    netns: "/run/netns/x".to_owned(),
                },
                1 => Record::Free {
                    key: key(n),
                    block: block.clone(),
                    position,
                    until: Moment(until),
                },
                _ => Record::Tombstone {
                    key: key(n),
                    until: Moment(until),
                },
            },
        );
        prop::collection::vec(record, 0..12)
    }

    fn text(records: &[Record]) -> Vec<u8> {
        let lines: String = records.iter().map(encode).collect();
        (header() + &lines).into_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_written_is_read(records in records()) {
            let bytes = text(&records);
            let log = decode(&bytes).unwrap();
            prop_assert_eq!(&log.records, &records);
            prop_assert_eq!(log.length, bytes.len());
        }

        #[test]
        fn a_torn_tail_loses_only_the_record_being_written(records in records(), cut in any::<prop::sample::Index>()) {
            let bytes = text(&records);
            let cut = cut.index(bytes.len() + 1);
            let log = decode(&bytes[..cut]).unwrap();
            prop_assert_eq!(&log.records[..], &records[..log.records.len()]);
            prop_assert!(text(&log.records).len() == log.length || log.length == 0);
            prop_assert!(cut - log.length <= records.get(log.records.len()).map_or(HEADER.len(), |r| encode(r).len()));
        }

        #[test]
        fn damage_to_a_whole_record_is_told(records in records(), at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
            prop_assume!(!records.is_empty());
            let mut bytes = text(&records);
            let body = HEADER.len() + 1..bytes.len() - 1;
            let at = body.start + at.index(body.len());
            bytes[at] ^= flip;
            // Turning a newline into something else, or the reverse, splits or joins records; no
            // case may yield a record that was never written.
            match decode(&bytes) {
                Ok(log) => prop_assert!(log.records.iter().zip(&records).all(|(a, b)| a == b)),
                Err(Error::DamagedLog { .. }) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn an_empty_file_and_a_torn_header_are_new_logs() {
        assert_eq!(decode(b"").unwrap(), Log::default());
        assert_eq!(decode(b"caracal-ipam").unwrap(), Log::default());
        assert!(matches!(
            decode(b"caracal-ipam-wal 2\n"),
            Err(Error::UnknownLogFormat { .. })
        ));
    }
}
