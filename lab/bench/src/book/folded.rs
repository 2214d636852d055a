//! JSON that is indented down to a depth and in one line from there on, so that a change of one round is a change
//! of one line.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// Arrays and objects around a round: file, results, result, placements, placement, daemon, rounds.
const DEPTH: usize = 7;

/// `value` as text.
///
/// # Errors
/// None that is known.
pub(super) fn write(value: &impl Serialize) -> anyhow::Result<String> {
    let mut octets = Vec::new();
    let folded = Folded {
        pretty: PrettyFormatter::new(),
        depth: 0,
    };
    value.serialize(&mut Serializer::with_formatter(&mut octets, folded))?;
    octets.push(b'\n');
    Ok(String::from_utf8(octets)?)
}

struct Folded<'a> {
    pretty: PrettyFormatter<'a>,
    /// Arrays and objects that are open.
    depth: usize,
}

/// Each call goes to the one or the other; those that open and close belong to what they open and close.
macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) $before:literal $after:literal;)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.depth += $before;
            let result = if self.depth > DEPTH {
                CompactFormatter.$name(writer $(, $argument)*)
            } else {
                self.pretty.$name(writer $(, $argument)*)
            };
            self.depth -= $after;
            result
        }
    )*};
}

impl Formatter for Folded<'_> {
    forward! {
        begin_array() 1 0;
        end_array() 0 1;
        begin_array_value(first: bool) 0 0;
        end_array_value() 0 0;
        begin_object() 1 0;
        end_object() 0 1;
        begin_object_key(first: bool) 0 0;
        end_object_key() 0 0;
        begin_object_value() 0 0;
        end_object_value() 0 0;
    }
}
