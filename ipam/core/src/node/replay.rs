//! From the log to the allocator and back.

use super::{Attachment, NodeAllocator, Settings};
use crate::wal::Record;
use crate::{AttachmentKey, Moment};

impl NodeAllocator {
    /// The allocator as these records left it. Blocks must still be told, the node's veths and
    /// namespaces judged, and the allocator opened.
    pub fn replay(settings: Settings, records: &[Record]) -> Self {
        let mut allocator = NodeAllocator::new(settings);
        for record in records {
            match record.clone() {
                Record::Assign {
                    key,
                    pod_uid,
                    block,
                    position,
                    addresses,
                    netns,
                } => {
                    allocator.resting.remove(&(block.clone(), position));
                    allocator.tombstones.remove(&key);
                    let attachment = Attachment {
                        pod_uid,
                        netns,
                        block,
                        position,
                        addresses,
                    };
                    allocator.attachments.insert(key, attachment);
                }
                Record::Free {
                    key,
                    block,
                    position,
                    until,
                } => {
                    allocator.attachments.remove(&key);
                    allocator.resting.insert((block, position), until);
                }
                Record::Tombstone { key, until } => {
                    allocator.tombstones.insert(key, until);
                }
            }
        }
        allocator
    }

    /// The shortest log that says the same at `now`, to replace one that has grown long.
    pub fn records(&self, now: Moment) -> Vec<Record> {
        let assigned = self
            .attachments
            .iter()
            .map(|(key, a)| a.record(key.clone()));
        let resting_here = self.blocks.iter().flat_map(|(id, block)| {
            block
                .resting(now)
                .map(move |(position, until)| (id.clone(), position, until))
        });
        let resting_elsewhere = self
            .resting
            .iter()
            .map(|((id, position), until)| (id.clone(), *position, *until));
        // Whose the address was no longer matters, only that it rests.
        let nobody = AttachmentKey {
            container_id: String::new(),
            interface: String::new(),
        };
        let freed = resting_here
            .chain(resting_elsewhere)
            .filter(|(_, _, until)| *until > now)
            .map(|(block, position, until)| Record::Free {
                key: nobody.clone(),
                block,
                position,
                until,
            });
        let tombstones = self
            .tombstones
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(key, until)| Record::Tombstone {
                key: key.clone(),
                until: *until,
            });
        freed.chain(assigned).chain(tombstones).collect()
    }
}
