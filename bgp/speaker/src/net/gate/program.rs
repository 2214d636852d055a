//! The filter as a program of classic BPF.
//!
//! Owns its instructions. The program looks for the interval that holds the source, by halves and
//! word by word, so that a SYN costs a score of instructions where there are a thousand peers;
//! there it compares the TTL. A packet begins for the program with the header of TCP, and that of
//! IP lies before.

use std::collections::BTreeMap;

use caracal_bgp_core::types::Family;
use libc::{
    BPF_ABS, BPF_B, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SKF_NET_OFF,
    sock_filter,
};

use super::Cut;

/// BPF_MAXINSNS: the kernel takes no longer program.
pub(super) const MAX_LEN: usize = 4096;

/// The whole segment is taken.
const TAKE: u32 = u32::MAX;
/// Nothing of it is, and nobody is told.
const DROP: u32 = 0;

/// A conditional jump leads over 255 instructions at most. One less, as the detour of one of its
/// targets may come between it and the other.
const NEAR: usize = 254;

/// So many single values are asked for one after the other. With more, programs are hardly shorter,
/// and ways through them longer.
const CHAIN: usize = 4;

/// Octets from the beginning of the IP header.
mod offset {
    pub(super) const TTL: i32 = 8;
    pub(super) const SOURCE: i32 = 12;
    pub(super) const HOP_LIMIT: i32 = 7;
    pub(super) const SOURCE_V6: i32 = 8;
}

/// The program that takes segments from where `cuts`, which are sorted, have a floor only with a
/// TTL at least as high, and all others. Empty when there are no cuts; how long it may be is not
/// looked at.
pub(super) fn render(family: Family, cuts: &[Cut]) -> Vec<sock_filter> {
    if cuts.is_empty() {
        return Vec::new();
    }
    let (ttl, source) = match family {
        Family::Ipv4Unicast => (offset::TTL, offset::SOURCE),
        Family::Ipv6Unicast => (offset::HOP_LIMIT, offset::SOURCE_V6),
    };
    let mut assembler = Assembler {
        reversed: Vec::new(),
        verdicts: BTreeMap::new(),
        ttl,
        source,
    };
    let start = assembler.word(0, 0, cuts);
    // The search is the last that was written, so nothing comes before it.
    debug_assert_eq!(start.0 + 1, assembler.reversed.len());
    assembler.reversed.reverse();
    assembler.reversed
}

/// An instruction, by how many come after it.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Drop,
    /// Take it with this TTL or a higher one.
    From(u8),
}

/// From this value of a word on, up to the next segment.
struct Segment<'a> {
    from: u32,
    then: Then<'a>,
}

enum Then<'a> {
    Floor(u8),
    /// It depends on the next word; the floor before the first of these cuts.
    Within(u8, &'a [Cut]),
}

struct Assembler {
    /// The last instruction first: as jumps lead forward only, the way is known when one is
    /// written.
    reversed: Vec<sock_filter>,
    /// Where verdicts are, or the nearest detours to them.
    verdicts: BTreeMap<Verdict, Label>,
    ttl: i32,
    source: i32,
}

impl Assembler {
    /// Decides by word `number` of the source, where the words before are those of `cuts`, and
    /// `floor` holds before the first.
    fn word(&mut self, number: u8, floor: u8, cuts: &[Cut]) -> Label {
        let search = self.search(number, &segments(number, floor, cuts));
        self.load(BPF_W, self.source + 4 * i32::from(number), search)
    }

    /// Finds the one of `segments` that holds the word which is loaded.
    fn search(&mut self, number: u8, segments: &[Segment<'_>]) -> Label {
        if let [segment] = segments {
            return self.arrive(number, segment);
        }
        if let Some((sea, islands)) = islands(segments) {
            let inside: Vec<Label> = islands
                .iter()
                .map(|island| self.arrive(number, island))
                .collect();
            let outside = self.arrive(number, sea);
            let islands = islands.iter().zip(inside);
            return islands.fold(outside, |next, (island, inside)| {
                self.branch(BPF_JEQ, island.from, inside, next)
            });
        }
        let half = segments.len() / 2;
        // Halves that do not end with an island may be islands in one sea.
        let split = match segments.get(half) {
            Some(next) if next.from - segments[half - 1].from == 1 && half + 1 < segments.len() => {
                half + 1
            }
            _ => half,
        };
        let (low, high) = segments.split_at(split);
        let above = self.search(number, high);
        let below = self.search(number, low);
        self.branch(BPF_JGE, high[0].from, above, below)
    }

    fn arrive(&mut self, number: u8, segment: &Segment<'_>) -> Label {
        match segment.then {
            Then::Floor(floor) => self.verdict(Verdict::From(floor)),
            Then::Within(floor, cuts) => self.word(number + 1, floor, cuts),
        }
    }

    fn verdict(&mut self, verdict: Verdict) -> Label {
        let label = match self.verdicts.get(&verdict) {
            Some(label) => self.near(*label),
            None => match verdict {
                Verdict::Drop => self.write(BPF_RET | BPF_K, 0, 0, DROP),
                Verdict::From(0) => self.write(BPF_RET | BPF_K, 0, 0, TAKE),
                Verdict::From(floor) => {
                    let take = self.verdict(Verdict::From(0));
                    let drop = self.verdict(Verdict::Drop);
                    let compare = self.branch(BPF_JGE, floor.into(), take, drop);
                    self.load(BPF_B, self.ttl, compare)
                }
            },
        };
        self.verdicts.insert(verdict, label);
        label
    }

    /// Loads octets at `offset` of the IP header, and goes on at `then`.
    fn load(&mut self, width: u32, offset: i32, then: Label) -> Label {
        if self.way(then) > 0 {
            self.detour(then);
        }
        let at = (SKF_NET_OFF + offset).cast_unsigned();
        self.write(BPF_LD | width | BPF_ABS, 0, 0, at)
    }

    fn branch(&mut self, compare: u32, with: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let way = |label| u8::try_from(self.way(label)).expect("near with a detour to spare");
        let (yes, no) = (way(yes), way(no));
        self.write(BPF_JMP | compare | BPF_K, yes, no, with)
    }

    /// `label`, or a detour to it where it is too far for a conditional jump.
    fn near(&mut self, label: Label) -> Label {
        if self.way(label) <= NEAR {
            return label;
        }
        self.detour(label)
    }

    fn detour(&mut self, label: Label) -> Label {
        let way = u32::try_from(self.way(label)).expect("programs are short");
        self.write(BPF_JMP | BPF_JA, 0, 0, way)
    }

    /// How many instructions a jump that is written now leads over.
    fn way(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    fn write(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Label {
        let code = u16::try_from(code).expect("codes have 16 bits");
        self.reversed.push(sock_filter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}

/// Where but for a few single values the same floor holds: a segment with it, and those values.
/// They are cheaper asked for one by one.
fn islands<'s, 'a>(segments: &'s [Segment<'a>]) -> Option<(&'s Segment<'a>, Vec<&'s Segment<'a>>)> {
    let sea = segments.last()?;
    let Then::Floor(floor) = sea.then else {
        return None;
    };
    let mut islands = Vec::new();
    for pair in segments.windows(2) {
        if matches!(pair[0].then, Then::Floor(other) if other == floor) {
            continue;
        }
        if pair[1].from - pair[0].from > 1 || islands.len() == CHAIN {
            return None;
        }
        islands.push(&pair[0]);
    }
    Some((sea, islands))
}

/// What holds for which values of word `number`.
fn segments(number: u8, floor: u8, cuts: &[Cut]) -> Vec<Segment<'_>> {
    let shift = 96 - 32 * u32::from(number);
    let value = |(at, _): &Cut| u32::try_from(at >> shift & 0xffff_ffff).expect("32 bits");
    let mut segments: Vec<Segment<'_>> = Vec::new();
    let mut push = |from, then| {
        segments.pop_if(|last| last.from == from);
        segments.push(Segment { from, then });
    };
    push(0, Then::Floor(floor));
    let mut before = floor;
    for group in cuts.chunk_by(|a, b| value(a) == value(b)) {
        let from = value(&group[0]);
        let (last, after) = group[group.len() - 1];
        // Sorted: where the last is at the beginning of the value, it is the only one.
        if last & ((1 << shift) - 1) == 0 {
            push(from, Then::Floor(after));
        } else {
            push(from, Then::Within(before, group));
            if let Some(next) = from.checked_add(1) {
                push(next, Then::Floor(after));
            }
        }
        before = after;
    }
    segments
}
