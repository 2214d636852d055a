//! Address blocks of policies.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An address block, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The block of `prefix_len` bits that `address` lies in. Host bits are cleared rather than refused:
    /// the API server has always let them pass in policies.
    ///
    /// # Errors
    ///
    /// [`CidrError`] if the length exceeds 32 (IPv4) or 128 (IPv6).
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Self, CidrError> {
        let masked = match address {
            IpAddr::V4(v4) if prefix_len <= 32 => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(prefix_len))
                    .unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if prefix_len <= 128 => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(prefix_len))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => {
                return Err(CidrError {
                    text: format!("{address}/{prefix_len}"),
                });
            }
        };
        Ok(Self {
            address: masked,
            prefix_len,
        })
    }

    /// The lowest address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of fixed leading bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `address` is of the same family and inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // Same length, same network part: the block of that length around the address is this one. An
        // address of the other family either has no block of this length or a different one.
        Self::new(address, self.prefix_len) == Ok(*self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CidrError {
            text: text.to_owned(),
        };
        let (address, prefix_len) = text.split_once('/').ok_or_else(error)?;
        let address = address.parse().map_err(|_| error())?;
        let prefix_len = prefix_len.parse().map_err(|_| error())?;
        Self::new(address, prefix_len)
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// Text that is no address block.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read {text:?} as an address block such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError {
    /// The text that was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(
            "10.1.2.3/8".parse::<Cidr>().unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(
            "10.1.2.3/0".parse::<Cidr>().unwrap().to_string(),
            "0.0.0.0/0"
        );
        assert_eq!(
            "2001:db8::1/32".parse::<Cidr>().unwrap().to_string(),
            "2001:db8::/32"
        );
        assert_eq!("::1/0".parse::<Cidr>().unwrap().to_string(), "::/0");
    }

    #[test]
    fn containment_is_per_family() {
        let all4: Cidr = "0.0.0.0/0".parse().unwrap();
        let host6: Cidr = "2001:db8::1/128".parse().unwrap();
        assert!(all4.contains("255.255.255.255".parse().unwrap()));
        assert!(!all4.contains("::".parse().unwrap()));
        assert!(host6.contains("2001:db8::1".parse().unwrap()));
        assert!(!host6.contains("2001:db8::2".parse().unwrap()));
        assert!(!host6.contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
