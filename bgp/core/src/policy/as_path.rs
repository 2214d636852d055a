//! Regular expressions over AS paths, in the dialect of routers.
//!
//! Owns the translation and the matching. Does not own the path.
//!
//! The expression is matched against the path as people read it: numbers in decimal, the latest AS
//! first, one space between two. `_` stands for what separates numbers: the beginning, the end, a
//! space, and the brackets and commas of sets (which no path here has). So `_65001_` finds the AS
//! anywhere, `^65001_` in front, `_65001$` at the origin, and `^$` is an own route. The rest is as
//! in extended regular expressions. The time to match is linear in the length of the path.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use crate::error::Error;
use crate::types::Asn;
use crate::wire::AsPath;

/// What `_` stands for outside brackets.
const SEPARATOR: &str = "(?:^|$|[ ,{}()])";
/// The same inside of brackets, where only characters can stand.
const SEPARATORS: &str = " ,{}()";

/// Octets that a compiled expression, and the automaton that grows from it at run time, may take:
/// a filter is written by people, but it must not be able to eat a node's memory.
const SIZE_LIMIT: usize = 256 << 10;

/// The text of a path; up to the usual length it needs no heap.
pub(super) type PathText = SmallVec<[u8; 96]>;

/// A regular expression over AS paths; equal when the text is.
#[derive(Clone)]
pub struct AsPathPattern {
    text: String,
    form: Form,
}

/// Most expressions ask for one AS at one place, which needs no automaton.
#[derive(Clone)]
enum Form {
    /// `^$`.
    Empty,
    /// `_N_`.
    Holds(Asn),
    /// `^N_`.
    BeginsWith(Asn),
    /// `_N$`.
    EndsWith(Asn),
    /// `^N$`.
    Only(Asn),
    /// Anything else.
    General(Regex),
}

impl AsPathPattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// [`Error::AsPathPattern`] where it is no regular expression, or one that grows too large.
    pub fn new(text: &str) -> Result<Self, Error> {
        // Compiled in any case: what is an error must not depend on a shortcut.
        let regex = compile(text)?;
        Ok(Self {
            text: text.to_owned(),
            form: shortcut(text).unwrap_or(Form::General(regex)),
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is found in `path`. `text` keeps the text of the path for the next expression;
    /// it is written when first needed.
    pub(super) fn matches(&self, path: &AsPath, text: &mut Option<PathText>) -> bool {
        match &self.form {
            Form::Empty => path.is_empty(),
            Form::Holds(asn) => path.contains(*asn),
            Form::BeginsWith(asn) => path.first() == Some(*asn),
            Form::EndsWith(asn) => path.origin() == Some(*asn),
            Form::Only(asn) => path.asns() == [*asn],
            Form::General(regex) => regex.is_match(text.get_or_insert_with(|| written(path))),
        }
    }

    /// Whether it is found in `path`.
    pub fn is_match(&self, path: &AsPath) -> bool {
        self.matches(path, &mut None)
    }
}

fn compile(text: &str) -> Result<Regex, Error> {
    RegexBuilder::new(&translated(text))
        // Paths are ASCII, and tables of Unicode classes are large.
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| Error::AsPathPattern {
            text: text.into(),
            why: reason(&error),
        })
}

/// The last line, which says what is wrong; those before draw the translated expression, which
/// nobody has written.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it grows too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

fn translated(text: &str) -> String {
    let mut translated = String::with_capacity(text.len() + SEPARATOR.len());
    let mut characters = text.chars().peekable();
    let mut in_brackets = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                // An underscore needs no escape in the translation and may not have one.
                Some('_') => translated.push('_'),
                Some(escaped) => translated.extend(['\\', escaped]),
                None => translated.push('\\'),
            },
            '_' if in_brackets => translated.push_str(SEPARATORS),
            '_' => translated.push_str(SEPARATOR),
            '[' if !in_brackets => {
                in_brackets = true;
                translated.push('[');
                translated.extend(characters.next_if_eq(&'^'));
                // In front, a closing bracket is one of the characters.
                if characters.next_if_eq(&']').is_some() {
                    translated.push_str("\\]");
                }
            }
            // Brackets within brackets are characters here, and would nest in the translation.
            '[' if characters.peek() != Some(&':') => translated.push_str("\\["),
            '[' => {
                translated.push('[');
                for inner in characters.by_ref() {
                    translated.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            // Set operators of the translation are characters here.
            '&' | '~' if in_brackets => translated.extend(['\\', character]),
            ']' => {
                in_brackets = false;
                translated.push(']');
            }
            other => translated.push(other),
        }
    }
    translated
}

fn shortcut(text: &str) -> Option<Form> {
    if text == "^$" {
        return Some(Form::Empty);
    }
    let (front, rest) = text.split_at_checked(1)?;
    let (number, back) = rest.split_at_checked(rest.len().checked_sub(1)?)?;
    let canonical = number.bytes().all(|digit| digit.is_ascii_digit())
        && (number == "0" || !number.starts_with('0'));
    let asn = Asn(number.parse().ok().filter(|_| canonical)?);
    match (front, back) {
        ("_", "_") => Some(Form::Holds(asn)),
        ("^", "_") => Some(Form::BeginsWith(asn)),
        ("_", "$") => Some(Form::EndsWith(asn)),
        ("^", "$") => Some(Form::Only(asn)),
        _ => None,
    }
}

fn written(path: &AsPath) -> PathText {
    let mut text = PathText::new();
    for (index, Asn(number)) in path.asns().iter().enumerate() {
        if index > 0 {
            text.push(b' ');
        }
        // Ten digits hold every number; the formatter of the standard library takes its time.
        let mut digits = [0; 10];
        let (mut rest, mut first) = (*number, digits.len());
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        text.extend_from_slice(&digits[first..]);
    }
    text
}

impl PartialEq for AsPathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AsPathPattern {}

impl std::hash::Hash for AsPathPattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.text)
    }
}

impl fmt::Debug for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(numbers: &[u32]) -> AsPath {
        AsPath::new(numbers.iter().copied().map(Asn).collect::<Vec<_>>())
    }

    #[test]
    fn expressions_match_as_on_routers() {
        let cases: &[(&str, &[u32], bool)] = &[
            ("^$", &[], true),
            ("^$", &[65001], false),
            (".*", &[], true),
            ("_65001_", &[65001], true),
            ("_65001_", &[1, 65001, 2], true),
            ("_65001_", &[165001], false),
            ("_65001_", &[650011], false),
            ("65001", &[165001], true),
            ("^65001_", &[65001, 2], true),
            ("^65001_", &[2, 65001], false),
            ("_65001$", &[2, 65001], true),
            ("_65001$", &[65001, 2], false),
            ("^65001$", &[65001], true),
            ("^65001$", &[65001, 65001], false),
            ("^65001(_65001)*$", &[65001, 65001, 65001], true),
            ("^65001(_65001)*$", &[65001, 2], false),
            ("_65001_65002_", &[1, 65001, 65002, 3], true),
            ("_65001_65002_", &[1, 65001, 3, 65002], false),
            ("^[0-9]+$", &[65001], true),
            ("^[0-9]+$", &[65001, 2], false),
            ("^[0-9]+_[0-9]+$", &[65001, 2], true),
            ("_(65001|65002)_", &[1, 65002], true),
            ("_6[0-9]{4}_", &[1, 65002], true),
            ("_6[0-9]{4}_", &[1, 650022], false),
            ("^[^_]+$", &[65001], true),
            ("^[^_]+$", &[65001, 2], false),
            ("^[[:digit:]]+$", &[65001], true),
            ("^[][0-9]+$", &[65001], true),
            ("^4200000000_", &[4_200_000_000, 1], true),
            ("_007_", &[7], false),
            ("_7_", &[7], true),
        ];
        for (text, numbers, expected) in cases {
            let pattern = AsPathPattern::new(text).unwrap();
            assert_eq!(
                pattern.is_match(&path(numbers)),
                *expected,
                "{text} {numbers:?}"
            );
        }
    }

    #[test]
    fn what_does_not_compile_says_why() {
        for (text, why) in [
            ("(65001", "unclosed group"),
            ("[0-9", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            ("((65001){1000}){1000}", "it grows too large"),
        ] {
            let error = AsPathPattern::new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn an_expression_that_breaks_backtrackers_takes_no_time() {
        let pattern = AsPathPattern::new("^(([0-9]+_?)+)+$").unwrap();
        let mut numbers = vec![65001; 2000];
        assert!(pattern.is_match(&path(&numbers)));
        numbers.push(1);
        let refused = AsPathPattern::new("^(([0-9]+_?)+)+x$").unwrap();
        assert!(!refused.is_match(&path(&numbers)));
    }

    // CVE-2026-49943: more than 2,048 numbers, which come in extended messages, overflowed the stack of a
    // matcher. A message holds 16,000 and some.
    #[test]
    fn a_path_as_long_as_a_message_is_matched_like_any_other() {
        for hops in [2_048, 2_049, 2_295, 16_000] {
            let mut numbers = vec![65001; hops - 1];
            numbers.push(7);
            let path = path(&numbers);
            for (text, expected) in [
                ("_7$", true),
                ("^65001_", true),
                ("_65001_7_", true),
                ("^(65001_)+7$", true),
                ("^(([0-9]+_?)+)+$", true),
                ("_8_", false),
                ("^(([0-9]+_?)+)+x$", false),
                ("_7_.*_65001_", false),
            ] {
                let pattern = AsPathPattern::new(text).unwrap();
                assert_eq!(pattern.is_match(&path), expected, "{text}, {hops} numbers");
            }
        }
    }

    #[test]
    fn patterns_are_equal_when_their_text_is() {
        let pattern = |text| AsPathPattern::new(text).unwrap();
        assert_eq!(pattern("_1_"), pattern("_1_"));
        assert_ne!(pattern("_1_"), pattern("_1$"));
    }

    /// A part of an expression, together with the meaning that the test gives it.
    #[derive(Clone, Debug)]
    enum Term {
        Number(u32),
        Any,
        AnyRun,
        Either(u32, u32),
    }

    impl Term {
        fn text(&self) -> String {
            match self {
                Self::Number(number) => number.to_string(),
                Self::Any => "[0-9]+".to_owned(),
                Self::AnyRun => "([0-9]+_)*".to_owned(),
                Self::Either(a, b) => format!("({a}|{b})"),
            }
        }
    }

    /// Whether `terms`, one after the other, are the whole of `numbers`.
    fn whole(terms: &[Term], numbers: &[u32]) -> bool {
        let Some((term, rest)) = terms.split_first() else {
            return numbers.is_empty();
        };
        if let Term::AnyRun = term {
            return (0..=numbers.len()).any(|taken| whole(rest, &numbers[taken..]));
        }
        numbers.split_first().is_some_and(|(number, tail)| {
            let fits = match term {
                Term::Number(wanted) => number == wanted,
                Term::Either(a, b) => number == a || number == b,
                Term::Any | Term::AnyRun => true,
            };
            fits && whole(rest, tail)
        })
    }

    fn number() -> impl Strategy<Value = u32> {
        prop::sample::select(vec![1, 2, 12, 21, 122, 65001, 4_200_000_000])
    }

    fn term() -> impl Strategy<Value = Term> {
        prop_oneof![
            number().prop_map(Term::Number),
            Just(Term::Any),
            Just(Term::AnyRun),
            (number(), number()).prop_map(|(a, b)| Term::Either(a, b)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn an_expression_means_what_its_terms_mean(
            terms in prop::collection::vec(term(), 0..5),
            numbers in prop::collection::vec(number(), 0..6),
        ) {
            let mut text = String::from("^");
            let mut after_number = false;
            for term in &terms {
                if after_number {
                    text.push('_');
                }
                text.push_str(&term.text());
                after_number = !matches!(term, Term::AnyRun);
            }
            // A run ends with a separator, which nothing may follow but a number.
            prop_assume!(!matches!(terms.last(), Some(Term::AnyRun)));
            text.push('$');
            let pattern = AsPathPattern::new(&text).unwrap();
            prop_assert_eq!(pattern.is_match(&path(&numbers)), whole(&terms, &numbers), "{}", text);
        }

        #[test]
        fn a_shortcut_changes_no_meaning(
            front in prop::sample::select(vec!["^", "_"]),
            back in prop::sample::select(vec!["$", "_"]),
            wanted in number(),
            numbers in prop::collection::vec(number(), 0..5),
        ) {
            let text = format!("{front}{wanted}{back}");
            let path = path(&numbers);
            let pattern = AsPathPattern::new(&text).unwrap();
            prop_assert!(!matches!(pattern.form, Form::General(_)));
            let general = compile(&text).unwrap().is_match(&written(&path));
            prop_assert_eq!(pattern.is_match(&path), general, "{} {:?}", text, path);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", numbers in prop::collection::vec(number(), 0..4)) {
            if let Ok(pattern) = AsPathPattern::new(&text) {
                pattern.is_match(&path(&numbers));
            }
        }
    }
}
