//! How a pool divides into blocks.
//!
//! Blocks are numbered through the subnets in their order, so a number is found by prefix sums.
//! Appending a subnet leaves every earlier number as it was; nothing else may be done to a layout
//! in use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Most bits of block number within one subnet: the index stays far below `u32::MAX` with the 64
/// subnets that a pool may have.
const MAX_INDEX_BITS: u8 = 24;

/// One range per family, both with equally many host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// IPv4 network address and prefix length.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// IPv6 network address and prefix length.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Whether new blocks may be cut from it.
    pub active: bool,
}

/// A block's addresses: `2^bits` of each family that is present, paired by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block {
    /// First IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// First IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Bits of position.
    pub bits: u8,
}

/// The addresses at one position of a block.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AddressPair {
    /// IPv4 address, where the block has that family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address, where the block has that family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

/// Addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// Lowest address.
    pub first: IpAddr,
    /// Highest address, of the same family.
    pub last: IpAddr,
}

/// A pool's division into blocks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    subnets: Vec<Subnet>,
    block_bits: u8,
    /// Number of the first block of each subnet, and at the end the number of all blocks.
    starts: Vec<u32>,
}

impl Layout {
    /// Lays out `subnets` in blocks of `2^block_bits` addresses.
    ///
    /// # Errors
    /// Where the subnets do not divide into blocks, or not all in the same families.
    pub fn new(subnets: Vec<Subnet>, block_bits: u8) -> Result<Layout, Error> {
        let first = subnets.first().ok_or(Error::NoSubnet)?;
        let families = (first.ipv4.is_some(), first.ipv6.is_some());
        let mut starts = vec![0_u32];
        let mut total = 0_u32;
        for (position, subnet) in subnets.iter().enumerate() {
            let host_bits = subnet.host_bits(position)?;
            if (subnet.ipv4.is_some(), subnet.ipv6.is_some()) != families {
                return Err(Error::MismatchedFamilies { subnet: position });
            }
            let size = Error::SubnetSize {
                subnet: position,
                host_bits,
                block_bits,
            };
            let index_bits = host_bits
                .checked_sub(block_bits)
                .ok_or_else(|| size.clone())?;
            if index_bits > MAX_INDEX_BITS || block_bits > 16 {
                return Err(size);
            }
            total = total.checked_add(1 << index_bits).ok_or(size)?;
            starts.push(total);
        }
        Ok(Layout {
            subnets,
            block_bits,
            starts,
        })
    }

    /// How many blocks there are; indexes run below this.
    pub fn blocks(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Addresses of one family in a block.
    pub fn addresses_per_block(&self) -> u32 {
        1 << self.block_bits
    }

    /// The block of this index.
    pub fn block(&self, index: u32) -> Option<Block> {
        let (subnet, within) = self.locate(index)?;
        let offset = u128::from(within) << self.block_bits;
        Some(Block {
            ipv4: subnet.ipv4.map(|(base, _)| {
                Ipv4Addr::from_bits(base.to_bits() + offset as u32) // within the subnet's 32 bits
            }),
            ipv6: subnet
                .ipv6
                .map(|(base, _)| Ipv6Addr::from_bits(base.to_bits() + offset)),
            bits: self.block_bits,
        })
    }

    /// The index of the block that holds `address`.
    pub fn index_of(&self, address: IpAddr) -> Option<u32> {
        self.subnets
            .iter()
            .zip(&self.starts)
            .find_map(|(subnet, start)| {
                let offset = subnet.offset_of(address)?;
                Some(start + (offset >> self.block_bits) as u32)
            })
    }

    /// Whether new blocks may be cut where this index lies.
    pub fn is_active(&self, index: u32) -> bool {
        self.locate(index).is_some_and(|(subnet, _)| subnet.active)
    }

    /// The index with which this one forms a prefix one bit shorter. None where the subnet is a
    /// single block.
    pub fn buddy(&self, index: u32) -> Option<u32> {
        let position = self
            .starts
            .partition_point(|start| *start <= index)
            .checked_sub(1)?;
        let (start, end) = (*self.starts.get(position)?, *self.starts.get(position + 1)?);
        let buddy = start + ((index - start) ^ 1);
        (buddy < end).then_some(buddy)
    }

    /// Whether every index of `earlier` still means the same addresses.
    pub fn extends(&self, earlier: &Layout) -> bool {
        let addresses = |subnet: &Subnet| (subnet.ipv4, subnet.ipv6);
        self.block_bits == earlier.block_bits
            && self.subnets.len() >= earlier.subnets.len()
            && self
                .subnets
                .iter()
                .zip(&earlier.subnets)
                .all(|(a, b)| addresses(a) == addresses(b))
    }

    /// Every range of addresses that the pool claims.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.subnets.iter().flat_map(|subnet| subnet.ranges())
    }

    /// Whether the two claim an address in common.
    pub fn overlaps(&self, other: &Layout) -> bool {
        self.ranges()
            .any(|a| other.ranges().any(|b| a.overlaps(&b)))
    }

    fn locate(&self, index: u32) -> Option<(&Subnet, u32)> {
        let position = self
            .starts
            .partition_point(|start| *start <= index)
            .checked_sub(1)?;
        let subnet = self.subnets.get(position)?;
        Some((subnet, index - self.starts[position]))
    }
}

impl Subnet {
    fn host_bits(&self, position: usize) -> Result<u8, Error> {
        let invalid = Error::MismatchedFamilies { subnet: position };
        let ipv4 = self
            .ipv4
            .map(|(_, len)| 32_u8.checked_sub(len).ok_or_else(|| invalid.clone()));
        let ipv6 = self
            .ipv6
            .map(|(_, len)| 128_u8.checked_sub(len).ok_or_else(|| invalid.clone()));
        let host_bits = match (ipv4.transpose()?, ipv6.transpose()?) {
            (None, None) => return Err(Error::NoFamily { subnet: position }),
            (Some(a), Some(b)) if a != b => return Err(invalid),
            (Some(bits), _) | (None, Some(bits)) => bits,
        };
        let below = mask(host_bits);
        let stray = self
            .ipv4
            .is_some_and(|(base, _)| u128::from(base.to_bits()) & below != 0)
            || self
                .ipv6
                .is_some_and(|(base, _)| base.to_bits() & below != 0);
        if stray {
            Err(Error::HostBits { subnet: position })
        } else {
            Ok(host_bits)
        }
    }

    fn offset_of(&self, address: IpAddr) -> Option<u128> {
        let range = self.ranges().find(|range| range.contains(address))?;
        Some(bits(address) - bits(range.first))
    }

    fn ranges(&self) -> impl Iterator<Item = Range> + use<> {
        let ipv4 = self.ipv4.map(|(base, len)| {
            let last = base.to_bits() | mask(32 - len) as u32;
            Range {
                first: base.into(),
                last: Ipv4Addr::from_bits(last).into(),
            }
        });
        let ipv6 = self.ipv6.map(|(base, len)| {
            let last = base.to_bits() | mask(128 - len);
            Range {
                first: base.into(),
                last: Ipv6Addr::from_bits(last).into(),
            }
        });
        ipv4.into_iter().chain(ipv6)
    }
}

impl Block {
    /// Positions in the block.
    pub fn size(&self) -> u32 {
        1 << self.bits
    }

    /// The addresses at `position`, which is taken modulo the size.
    pub fn at(&self, position: u32) -> AddressPair {
        let position = position % self.size();
        AddressPair {
            ipv4: self
                .ipv4
                .map(|base| Ipv4Addr::from_bits(base.to_bits() + position)),
            ipv6: self
                .ipv6
                .map(|base| Ipv6Addr::from_bits(base.to_bits() + u128::from(position))),
        }
    }

    /// The position of `address`.
    pub fn position_of(&self, address: IpAddr) -> Option<u32> {
        let range = self.ranges().find(|range| range.contains(address))?;
        Some((bits(address) - bits(range.first)) as u32)
    }

    /// The block's addresses, one range per family.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + use<> {
        let last = self.at(self.size() - 1);
        let ipv4 = self.ipv4.zip(last.ipv4).map(|(a, b)| Range {
            first: a.into(),
            last: b.into(),
        });
        let ipv6 = self.ipv6.zip(last.ipv6).map(|(a, b)| Range {
            first: a.into(),
            last: b.into(),
        });
        ipv4.into_iter().chain(ipv6)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Block) -> bool {
        self.ranges()
            .any(|a| other.ranges().any(|b| a.overlaps(&b)))
    }

    /// Whether a reserved range takes the addresses at `position`. One family is enough: a pod
    /// gets both or none.
    pub fn is_reserved(&self, position: u32, reserved: &[Range]) -> bool {
        self.at(position)
            .iter()
            .any(|address| reserved.iter().any(|r| r.contains(address)))
    }

    /// How many positions `reserved` takes.
    pub fn reserved_positions(&self, reserved: &[Range]) -> u32 {
        if !self
            .ranges()
            .any(|a| reserved.iter().any(|b| a.overlaps(b)))
        {
            return 0;
        }
        (0..self.size())
            .filter(|position| self.is_reserved(*position, reserved))
            .count() as u32
    }
}

impl AddressPair {
    /// The addresses present, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.ipv6.map(IpAddr::V6))
    }
}

impl Range {
    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && self.first <= other.last
            && other.first <= self.last
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(host_bits: u8) -> u128 {
    if host_bits >= 128 {
        u128::MAX
    } else {
        (1 << host_bits) - 1
    }
}
