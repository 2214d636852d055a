//! Netlink framing: message headers and attributes, to bytes and back.
//!
//! Owns lengths, padding and byte order. Does not own what the attributes mean.
//! Source: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`.

#[cfg(test)]
mod tests;

use crate::error::Error;

/// `NFPROTO_INET`: the family of every table this crate touches.
pub(crate) const FAMILY_INET: u8 = 1;
/// `NFPROTO_UNSPEC`: any family.
pub(crate) const FAMILY_ANY: u8 = 0;

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Length of `struct nfgenmsg`, which follows it in every nfnetlink message.
pub(crate) const NFGEN_LEN: usize = 4;
/// Length of `struct nlattr`.
pub(crate) const ATTRIBUTE_HEADER_LEN: usize = 4;

/// `NLA_F_NESTED`; the two top bits of an attribute's type are flags.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Builds one or several netlink messages in a row.
#[derive(Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Writes one message; `body` appends its attributes. `resource` is `nfgenmsg.res_id`.
    pub(crate) fn message(
        &mut self,
        header: Header,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&header.kind.to_ne_bytes());
        self.buffer.extend_from_slice(&header.flags.to_ne_bytes());
        self.buffer
            .extend_from_slice(&header.sequence.to_ne_bytes());
        // Port 0: the kernel fills in the sender's.
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.buffer.len() - start)
            .expect("a message holds at most a few 64 KiB attributes");
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |w| w.buffer.extend_from_slice(value));
    }

    /// A NUL-terminated string, as the kernel's `NLA_STRING` policies accept it everywhere.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |w| {
            w.buffer.extend_from_slice(value.as_bytes());
            w.buffer.push(0);
        });
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    /// Appends what was written elsewhere, already framed and padded.
    pub(crate) fn raw(&mut self, attributes: &[u8]) {
        self.buffer.extend_from_slice(attributes);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.buffer.len() - start)
            .expect("element lists are cut into chunks and everything else is short");
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

/// The fields of `struct nlmsghdr` that a sender chooses.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
}

/// One received message.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Netlink port of whoever caused it.
    pub(crate) port: u32,
    /// Everything after `struct nlmsghdr`.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Family and attributes of an nfnetlink message.
    pub(crate) fn netfilter(&self) -> Result<(u8, Attributes<'a>), Error> {
        let attributes = self.payload.get(NFGEN_LEN..).ok_or(Error::Malformed {
            what: "nfnetlink header",
        })?;
        Ok((self.payload[0], Attributes(attributes)))
    }
}

/// Walks the messages of one datagram; ends at the first that does not fit.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_native(datagram.get(0..4)?) as usize;
        let message = datagram.get(..length).filter(|m| m.len() >= HEADER_LEN)?;
        let next = length.next_multiple_of(4).min(datagram.len());
        datagram = &datagram[next..];
        Some(Message {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            flags: u16::from_ne_bytes([message[6], message[7]]),
            sequence: u32_native(&message[8..12]),
            port: u32_native(&message[12..16]),
            payload: &message[HEADER_LEN..],
        })
    })
}

/// A run of attributes; iterates as (type without flag bits, value).
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of that type.
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub(crate) fn string(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        self.get(kind)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(crate) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..ATTRIBUTE_HEADER_LEN)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.0.get(ATTRIBUTE_HEADER_LEN..length)?;
        self.0 = &self.0[length.next_multiple_of(4).min(self.0.len())..];
        Some((kind, value))
    }
}

/// A string that may or may not end in NUL. Names in the kernel are bytes; ours are ASCII, and a
/// foreign one that is not UTF-8 only has to be different from ours.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(crate) fn u32_native(bytes: &[u8]) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[..4]);
    u32::from_ne_bytes(array)
}
