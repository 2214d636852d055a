//! Selectors over labels, in Calico's notation: `all()`, `rack == 'a' && !has(gpu)`,
//! `zone in {'x', 'y'} || role starts with "edge"`.
//!
//! Owns: the grammar and its evaluation. Does not own: which labels an object has.
//!
//! ```text
//! or    = and ("||" and)*
//! and   = term ("&&" term)*
//! term  = "!" term | "(" or ")" | "all()" | "global()" | "has(" label ")" | label test
//! test  = ("==" | "=" | "!=") string | ["not"] "in" "{" [string ("," string)*] "}"
//!       | ("contains" | "starts with" | "ends with") string
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Expression);

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}, column {column}: expected {expected}")]
pub struct InvalidSelector {
    /// The text as given.
    pub text: String,
    /// Where it goes wrong, counted in characters from 1.
    pub column: usize,
    /// What could have stood there.
    pub expected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    All,
    Has(String),
    Equals(String, String),
    /// Also true where the label is absent, as in Calico.
    Differs(String, String),
    In(String, BTreeSet<String>),
    /// Also true where the label is absent, as in Calico.
    NotIn(String, BTreeSet<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Selector {
    /// The selector `all()`.
    pub fn all() -> Self {
        Selector(Expression::All)
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    /// The empty text selects all.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Selector::all());
        }
        let mut parser = Parser {
            text,
            rest: text,
            depth: 0,
        };
        let expression = parser.or()?;
        parser.skip_space();
        if parser.rest.is_empty() {
            Ok(Selector(expression))
        } else {
            Err(parser.expected("&&, || or the end"))
        }
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let test =
            |label: &str, test: &dyn Fn(&str) -> bool| labels.get(label).map(|value| test(value));
        match self {
            Expression::All => true,
            Expression::Has(label) => labels.contains_key(label),
            Expression::Equals(label, value) => test(label, &|v| v == value).unwrap_or(false),
            Expression::Differs(label, value) => test(label, &|v| v != value).unwrap_or(true),
            Expression::In(label, values) => test(label, &|v| values.contains(v)).unwrap_or(false),
            Expression::NotIn(label, values) => {
                test(label, &|v| !values.contains(v)).unwrap_or(true)
            }
            Expression::Contains(label, part) => {
                test(label, &|v| v.contains(part.as_str())).unwrap_or(false)
            }
            Expression::StartsWith(label, part) => {
                test(label, &|v| v.starts_with(part.as_str())).unwrap_or(false)
            }
            Expression::EndsWith(label, part) => {
                test(label, &|v| v.ends_with(part.as_str())).unwrap_or(false)
            }
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(terms) => terms.iter().all(|term| term.matches(labels)),
            Expression::Or(terms) => terms.iter().any(|term| term.matches(labels)),
        }
    }
}

/// Depth of nested `!` and parentheses: the text comes from outside and the parser recurses.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Expression, InvalidSelector> {
        let mut terms = vec![self.and()?];
        while self.token("||") {
            terms.push(self.and()?);
        }
        Ok(one_or(terms, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, InvalidSelector> {
        let mut terms = vec![self.term()?];
        while self.token("&&") {
            terms.push(self.term()?);
        }
        Ok(one_or(terms, Expression::And))
    }

    fn term(&mut self) -> Result<Expression, InvalidSelector> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.expected("less nesting"));
        }
        let term = self.nested_term();
        self.depth -= 1;
        term
    }

    fn nested_term(&mut self) -> Result<Expression, InvalidSelector> {
        if self.token("!") {
            return Ok(Expression::Not(Box::new(self.term()?)));
        }
        if self.token("(") {
            let inner = self.or()?;
            return if self.token(")") {
                Ok(inner)
            } else {
                Err(self.expected(")"))
            };
        }
        let label = self.label()?;
        if self.token("(") {
            return match label {
                "all" | "global" if self.token(")") => Ok(Expression::All),
                "has" => {
                    let label = self.label()?.to_owned();
                    if self.token(")") {
                        Ok(Expression::Has(label))
                    } else {
                        Err(self.expected(")"))
                    }
                }
                _ => Err(self.expected("all(), global() or has(label)")),
            };
        }
        self.test(label.to_owned())
    }

    fn test(&mut self, label: String) -> Result<Expression, InvalidSelector> {
        if self.token("==") || self.token("=") {
            Ok(Expression::Equals(label, self.string()?))
        } else if self.token("!=") {
            Ok(Expression::Differs(label, self.string()?))
        } else if self.words(&["not", "in"]) {
            Ok(Expression::NotIn(label, self.set()?))
        } else if self.words(&["in"]) {
            Ok(Expression::In(label, self.set()?))
        } else if self.words(&["contains"]) {
            Ok(Expression::Contains(label, self.string()?))
        } else if self.words(&["starts", "with"]) {
            Ok(Expression::StartsWith(label, self.string()?))
        } else if self.words(&["ends", "with"]) {
            Ok(Expression::EndsWith(label, self.string()?))
        } else {
            Err(self.expected("==, !=, in, not in, contains, starts with or ends with"))
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, InvalidSelector> {
        if !self.token("{") {
            return Err(self.expected("{"));
        }
        let mut values = BTreeSet::new();
        if self.token("}") {
            return Ok(values);
        }
        loop {
            values.insert(self.string()?);
            if self.token("}") {
                return Ok(values);
            }
            if !self.token(",") {
                return Err(self.expected(", or }"));
            }
        }
    }

    fn string(&mut self) -> Result<String, InvalidSelector> {
        self.skip_space();
        let quote = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => return Err(self.expected("a quoted string")),
        };
        let body = &self.rest[1..];
        let Some(end) = body.find(quote) else {
            return Err(self.expected("a quoted string that ends"));
        };
        self.rest = &body[end + 1..];
        Ok(body[..end].to_owned())
    }

    fn label(&mut self) -> Result<&'a str, InvalidSelector> {
        self.skip_space();
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')))
            .unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected("a label, all(), has(label), ! or ("));
        }
        let (label, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(label)
    }

    /// Takes all of `words`, or nothing.
    fn words(&mut self, words: &[&str]) -> bool {
        let before = self.rest;
        for word in words {
            self.skip_space();
            match self.rest.strip_prefix(word) {
                Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                    self.rest = rest
                }
                _ => {
                    self.rest = before;
                    return false;
                }
            }
        }
        true
    }

    fn token(&mut self, token: &str) -> bool {
        self.skip_space();
        // `!` before `=` belongs to the comparison.
        if token == "!" && self.rest.starts_with("!=") {
            return false;
        }
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expected(&self, expected: &'static str) -> InvalidSelector {
        let taken = &self.text[..self.text.len() - self.rest.len()];
        InvalidSelector {
            text: self.text.to_owned(),
            column: taken.chars().count() + 1,
            expected,
        }
    }
}

fn one_or(mut terms: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    if terms.len() == 1 {
        terms.remove(0)
    } else {
        many(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn selectors_select() {
        let node = labels(&[
            ("rack", "a"),
            ("topology.kubernetes.io/zone", "z1"),
            ("index", "7"),
        ]);
        for (text, expected) in [
            ("", true),
            ("all()", true),
            ("global()", true),
            ("rack == 'a'", true),
            ("rack = \"a\"", true),
            ("rack == 'b'", false),
            ("rack != 'b'", true),
            ("missing != 'b'", true),
            ("missing == 'b'", false),
            ("has(rack)", true),
            ("!has(rack)", false),
            ("! has( gpu )", true),
            ("rack in {'a', 'b'}", true),
            ("rack not in {'a', 'b'}", false),
            ("missing not in {'a'}", true),
            ("rack in {}", false),
            ("topology.kubernetes.io/zone starts with 'z'", true),
            ("topology.kubernetes.io/zone ends with '1'", true),
            ("topology.kubernetes.io/zone contains 'x'", false),
            ("rack == 'b' || index == '7' && has(rack)", true),
            ("(rack == 'b' || index == '7') && has(gpu)", false),
            ("!(rack == 'b')", true),
        ] {
            let selector: Selector = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&node), expected, "{text}");
        }
    }

    #[test]
    fn errors_point_at_the_column() {
        for (text, column) in [
            ("rack", 5),
            ("rack == a", 9),
            ("rack == 'a", 9),
            ("rack == 'a' has(b)", 13),
            ("(all()", 7),
            ("any()", 5),
            ("rack in 'a'", 9),
            ("&& all()", 1),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert_eq!(error.column, column, "{error}");
        }
        assert!("!".repeat(10_000).parse::<Selector>().is_err());
    }
}
