//! The tables that senders tell and receivers must hold.
//!
//! Owns what a realistic table looks like: lengths as in the Internet's table, several prefixes to a set of
//! attributes, paths of two to eight ASes, some communities. Does not own octets ([`crate::wire`]) nor what a
//! receiver has ([`crate::ledger`]).

use std::collections::HashSet;

use crate::prefix::{Prefix, PrefixIndex};
use crate::rng::Rng;

/// A set of attributes that some sender gives its prefixes: its place in [`Routes::paths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

impl PathId {
    /// No path: the prefix is not there.
    pub const NONE: Self = Self(0);
    /// Attributes that nobody sent.
    pub const FOREIGN: Self = Self(u32::MAX);
}

/// Attributes as a sender gives them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Who sends it, by its place among the senders.
    pub sender: u32,
    /// ORIGIN: 0 IGP, 2 incomplete.
    pub origin: u8,
    /// AS_PATH, one sequence, the sender's AS first where it is external.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC, not zero; internal senders only, because it does not cross a second AS.
    pub med: Option<u32>,
    /// LOCAL_PREF; internal senders only.
    pub local_pref: Option<u32>,
    /// COMMUNITIES, ascending.
    pub communities: Vec<u32>,
    /// LARGE_COMMUNITY, ascending.
    pub large_communities: Vec<[u32; 3]>,
}

/// Prefixes that share a path.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they share.
    pub path: PathId,
    /// Which they are, by their number in [`Routes::prefixes`].
    pub prefixes: Vec<u32>,
}

/// What one sender tells, in this order.
pub type Feed = Vec<Group>;

/// Every prefix and every path of a case.
#[derive(Debug)]
pub struct Routes {
    /// The prefixes, by number.
    pub prefixes: Vec<Prefix>,
    /// From prefix to number.
    pub index: PrefixIndex,
    /// The paths, by [`PathId`]. The first stands for [`PathId::NONE`] and is nobody's.
    pub paths: Vec<Path>,
    known: HashSet<Path>,
    rng: Rng,
}

/// How a sender's paths look.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The sender.
    pub sender: u32,
    /// Its AS where it is external; internal senders do not put theirs into the path.
    pub external: Option<u32>,
    /// Length of the AS path; drawn as seen in the Internet's table when `None`.
    pub length: Option<usize>,
}

impl Routes {
    /// Draws `count` prefixes from `seed`, and puts them into groups of `per_path` on average.
    pub fn draw(count: usize, per_path: f64, seed: u64) -> (Self, Vec<Vec<u32>>) {
        let mut rng = Rng::new(seed);
        let (prefixes, groups) = draw_prefixes(&mut rng, count, per_path);
        let nobody = Path {
            sender: u32::MAX,
            origin: 0,
            as_path: Vec::new(),
            med: None,
            local_pref: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
        };
        let routes = Self {
            index: PrefixIndex::new(&prefixes),
            prefixes,
            paths: vec![nobody],
            known: HashSet::new(),
            rng,
        };
        (routes, groups)
    }

    /// Draws a path that differs from all others.
    pub fn draw_path(&mut self, shape: Shape) -> PathId {
        let mut path = draw_path(&mut self.rng, shape);
        while self.known.contains(&path) {
            path = draw_path(&mut self.rng, shape);
        }
        self.add_path(path)
    }

    /// Adds a path, which differs from all others.
    pub fn add_path(&mut self, path: Path) -> PathId {
        let new = self.known.insert(path.clone());
        debug_assert!(new, "{path:?} is there already");
        let id = PathId(self.paths.len() as u32);
        self.paths.push(path);
        id
    }

    /// A path for each of `groups`, all of one shape.
    pub fn feed(&mut self, groups: &[Vec<u32>], shape: Shape) -> Feed {
        groups
            .iter()
            .map(|prefixes| Group {
                path: self.draw_path(shape),
                prefixes: prefixes.clone(),
            })
            .collect()
    }

    /// The randomness that drew the prefixes, for whatever else a case has to draw.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The table of someone who heard all of `feeds`, a later one winning over an earlier one.
    pub fn table<'a>(&self, feeds: impl IntoIterator<Item = &'a Feed>) -> Vec<PathId> {
        let mut table = vec![PathId::NONE; self.prefixes.len()];
        for group in feeds.into_iter().flatten() {
            for number in &group.prefixes {
                table[*number as usize] = group.path;
            }
        }
        table
    }
}

/// Number of prefixes of each length among a thousand, near what public route collectors show for IPv4.
const LENGTHS: &[(u8, u32)] = &[
    (24, 606),
    (23, 101),
    (22, 115),
    (21, 49),
    (20, 44),
    (19, 28),
    (18, 15),
    (17, 10),
    (16, 18),
    (15, 3),
    (14, 3),
    (13, 2),
    (12, 2),
    (11, 2),
    (10, 2),
];

/// Length of AS paths among a hundred.
const PATH_LENGTHS: &[(usize, u32)] = &[(2, 5), (3, 18), (4, 32), (5, 24), (6, 12), (7, 6), (8, 3)];

/// Networks that routers refuse to learn or that the bench itself uses (RFC 6890).
const RESERVED: &[(u32, u8)] = &[
    (0x0000_0000, 8),
    (0x0a00_0000, 8),
    (0x6440_0000, 10),
    (0x7f00_0000, 8),
    (0xa9fe_0000, 16),
    (0xac10_0000, 12),
    (0xc000_0000, 24),
    (0xc000_0200, 24),
    (0xc0a8_0000, 16),
    (0xc612_0000, 15),
    (0xc633_6400, 24),
    (0xcb00_7100, 24),
    (0xe000_0000, 3),
];

fn draw_prefixes(rng: &mut Rng, count: usize, per_path: f64) -> (Vec<Prefix>, Vec<Vec<u32>>) {
    let reserved: Vec<Prefix> = RESERVED.iter().map(|(a, l)| Prefix::new(*a, *l)).collect();
    let mut seen = HashSet::with_capacity(count);
    let mut prefixes = Vec::with_capacity(count);
    let mut groups = Vec::new();
    // A group goes on with this chance, which makes the sizes geometric with the mean asked for.
    let more = (1000.0 * (1.0 - 1.0 / per_path.max(1.0))) as u32;
    while prefixes.len() < count {
        let mut home = rng.number() as u32;
        while reserved.iter().any(|net| net.covers(Prefix::new(home, 32))) {
            home = rng.number() as u32;
        }
        let (mut group, mut refusals) = (Vec::new(), 0);
        while prefixes.len() < count {
            // Three of four prefixes of a network lie near each other, the rest anywhere.
            let near = (home & 0xffff_0000) | (rng.number() as u32 & 0x0003_ffff);
            let address = if rng.chance(750) {
                near
            } else {
                rng.number() as u32
            };
            let prefix = Prefix::new(address, *weighted(rng, LENGTHS));
            let refused = |net: &Prefix| net.covers(prefix) || prefix.covers(*net);
            if reserved.iter().any(refused) || !seen.insert(prefix) {
                refusals += 1;
                if refusals == MOST_REFUSALS {
                    break;
                }
                continue;
            }
            group.push(prefixes.len() as u32);
            prefixes.push(prefix);
            if !rng.chance(more) {
                break;
            }
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    (prefixes, groups)
}

/// A neighbourhood that refuses so often is reserved or full.
const MOST_REFUSALS: u32 = 20;

fn draw_path(rng: &mut Rng, shape: Shape) -> Path {
    let length = shape
        .length
        .unwrap_or_else(|| *weighted(rng, PATH_LENGTHS))
        .max(1);
    let mut as_path: Vec<u32> = shape.external.into_iter().collect();
    while as_path.len() + 1 < length {
        // Most transit goes through few networks, and some of them prepend.
        let next = match as_path.last() {
            Some(last) if as_path.len() > 1 && rng.chance(120) => *last,
            _ => TRANSIT_FIRST + 13 * rng.below(TRANSIT_COUNT),
        };
        as_path.push(next);
    }
    if as_path.len() < length {
        // One network in four has a number of four octets.
        as_path.push(if rng.chance(250) {
            rng.between(196_608, 401_308)
        } else {
            rng.between(20_000, 60_000)
        });
    }
    let internal = shape.external.is_none();
    let mut communities: Vec<u32> = (0..*rng.pick(&[0, 0, 1, 2, 2, 3, 4, 6]))
        .map(|_| rng.between(1_000, 60_000) << 16 | rng.below(10_000))
        .collect();
    communities.sort_unstable();
    communities.dedup();
    let large_communities = if rng.chance(100) {
        vec![[
            rng.between(196_608, 401_308),
            rng.below(1000),
            rng.below(1000),
        ]]
    } else {
        Vec::new()
    };
    Path {
        sender: shape.sender,
        origin: if rng.chance(900) { 0 } else { 2 },
        as_path,
        med: (internal && rng.chance(300)).then(|| rng.between(1, 1000)),
        local_pref: internal.then_some(100),
        communities,
        large_communities,
    }
}

const TRANSIT_FIRST: u32 = 1_001;
const TRANSIT_COUNT: u32 = 400;

fn weighted<'a, T>(rng: &mut Rng, weights: &'a [(T, u32)]) -> &'a T {
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.below(total);
    for (item, weight) in weights {
        if left < *weight {
            return item;
        }
        left -= weight;
    }
    unreachable!("the number drawn is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn shape() -> Shape {
        Shape {
            sender: 0,
            external: Some(65001),
            length: None,
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_table_and_another_seed_another() {
        let (one, groups) = Routes::draw(2_000, 6.0, 1);
        let (same, same_groups) = Routes::draw(2_000, 6.0, 1);
        let (other, _) = Routes::draw(2_000, 6.0, 2);
        assert_eq!(one.prefixes, same.prefixes);
        assert_eq!(groups, same_groups);
        assert_ne!(one.prefixes, other.prefixes);
    }

    #[test]
    fn every_prefix_is_distinct_usable_and_in_one_group() {
        let (routes, groups) = Routes::draw(50_000, 6.0, 1);
        let distinct: HashSet<Prefix> = routes.prefixes.iter().copied().collect();
        assert_eq!(distinct.len(), 50_000);
        let grouped: Vec<u32> = groups.concat();
        assert_eq!(grouped, (0..50_000).collect::<Vec<u32>>());
        for (address, len) in RESERVED {
            let reserved = Prefix::new(*address, *len);
            let refused = |p: &Prefix| reserved.covers(*p) || p.covers(reserved);
            assert_eq!(
                routes.prefixes.iter().copied().find(refused),
                None,
                "{reserved}"
            );
        }
    }

    #[test]
    fn a_table_looks_like_the_internets() {
        let (mut routes, groups) = Routes::draw(60_000, 6.0, 1);
        let mean = 60_000.0 / groups.len() as f64;
        assert!((5.5..6.5).contains(&mean), "{mean} prefixes per path");
        let mut lengths: BTreeMap<u8, usize> = BTreeMap::new();
        for prefix in &routes.prefixes {
            *lengths.entry(prefix.len()).or_default() += 1;
        }
        let most = lengths[&24] as f64 / 60_000.0;
        assert!((0.55..0.66).contains(&most), "{lengths:?}");
        let feed = routes.feed(&groups, shape());
        let lengths: Vec<usize> = feed
            .iter()
            .map(|group| routes.paths[group.path.0 as usize].as_path.len())
            .collect();
        assert_eq!(lengths.iter().min(), Some(&2));
        assert_eq!(lengths.iter().max(), Some(&8));
        let with_communities = feed
            .iter()
            .filter(|group| !routes.paths[group.path.0 as usize].communities.is_empty())
            .count() as f64;
        assert!((0.6..0.9).contains(&(with_communities / feed.len() as f64)));
    }

    #[test]
    fn paths_are_distinct_so_that_a_receiver_can_tell_them_apart() {
        let (mut routes, groups) = Routes::draw(30_000, 1.5, 1);
        let feed = routes.feed(&groups, shape());
        let distinct: HashSet<&Path> = feed
            .iter()
            .map(|group| &routes.paths[group.path.0 as usize])
            .collect();
        assert_eq!(distinct.len(), feed.len());
    }

    #[test]
    fn a_table_holds_what_the_feeds_say_the_later_one_winning() {
        let (mut routes, _) = Routes::draw(10, 1.0, 1);
        let one = routes.feed(&[vec![0, 1], vec![2]], shape());
        let two = routes.feed(
            &[vec![1]],
            Shape {
                sender: 1,
                ..shape()
            },
        );
        let table = routes.table([&one, &two]);
        assert_eq!(table[0], one[0].path);
        assert_eq!(table[1], two[0].path);
        assert_eq!(table[2], one[1].path);
        assert_eq!(table[3], PathId::NONE);
    }
}
