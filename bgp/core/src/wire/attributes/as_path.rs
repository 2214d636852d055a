//! AS_PATH as a value.

use std::fmt;

use crate::types::Asn;

/// AS_PATH as one sequence, the latest AS first.
///
/// Sets cannot occur: RFC 9774 §3 has routes with them withdrawn on arrival, and segments of a
/// confederation come only from members of one. Where a sequence exceeds the 255 numbers that a
/// segment holds is the encoder's affair.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath(Box<[Asn]>);

impl AsPath {
    /// A path through `asns`, the latest first.
    pub fn new(asns: impl Into<Box<[Asn]>>) -> Self {
        Self(asns.into())
    }

    /// The numbers, the latest first.
    pub fn asns(&self) -> &[Asn] {
        &self.0
    }

    /// The number of hops, repetitions included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the route was born in the AS of the one who tells it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The neighbouring AS that sent the route.
    pub fn first(&self) -> Option<Asn> {
        self.0.first().copied()
    }

    /// The AS in which the route was born.
    pub fn origin(&self) -> Option<Asn> {
        self.0.last().copied()
    }

    /// How often `asn` occurs.
    pub fn occurrences(&self, asn: Asn) -> usize {
        self.0.iter().filter(|hop| **hop == asn).count()
    }

    /// Whether `asn` occurs.
    pub fn contains(&self, asn: Asn) -> bool {
        self.0.contains(&asn)
    }

    /// The path with `asn` put `times` times in front.
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let mut asns = Vec::with_capacity(self.0.len() + times);
        asns.resize(times, asn);
        asns.extend_from_slice(&self.0);
        Self(asns.into())
    }
}

impl FromIterator<Asn> for AsPath {
    fn from_iter<I: IntoIterator<Item = Asn>>(asns: I) -> Self {
        Self(asns.into_iter().collect())
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, asn) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{asn}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepending_leaves_the_rest_of_the_path_alone() {
        let path = AsPath::new([Asn(2), Asn(3)]).prepended(Asn(1), 2);
        assert_eq!(path.to_string(), "1 1 2 3");
        assert_eq!(path.first(), Some(Asn(1)));
        assert_eq!(path.origin(), Some(Asn(3)));
        assert_eq!(path.occurrences(Asn(1)), 2);
    }
}
