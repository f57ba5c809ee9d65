//! The host's network as the datapaths need it: a plain value, compared to see whether anything changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// Its address; bits beyond the length are kept as given (an interface address) or zero (a route).
    pub address: IpAddr,
    /// Its length in bits.
    pub length: u8,
}

impl Prefix {
    /// The prefix with every bit beyond its length zero: as a route is written. A length beyond the address's own
    /// is taken as the whole address.
    #[must_use]
    pub fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(self.length.into()))
                    .unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(self.length.into()))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Self { address, ..self }
    }

    /// Whether `address` is inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && self.masked().address == Self { address, ..self }.masked().address
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Its name, from the configuration.
    pub name: String,
    /// Its index; none while the interface does not exist or is not up.
    pub ifindex: Option<u32>,
    /// Layer-3 MTU in bytes.
    pub mtu: u32,
    /// Whether it has an Ethernet header (ARPHRD_ETHER).
    pub ethernet: bool,
    /// Its addresses with their prefix lengths, sorted.
    pub addresses: Vec<Prefix>,
    /// Next hop of the IPv4 default route through it.
    pub gateway: Option<Ipv4Addr>,
}

/// Everything that the datapaths need to know of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The public interface.
    pub wan: LinkState,
    /// The WireGuard interface.
    pub tunnel: LinkState,
    /// Addresses that public ports are served on, sorted.
    pub public_addresses: Vec<IpAddr>,
    /// Source address of masqueraded packets.
    pub snat_address: Option<Ipv4Addr>,
    /// Prefixes routed into the tunnel, the tunnel's own included, default routes excluded.
    pub home_prefixes: Vec<Prefix>,
    /// Every address of this host, on whatever interface.
    pub own_addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix {
            address: address.parse().unwrap(),
            length,
        }
    }

    #[test]
    fn masks() {
        for (address, length, masked) in [
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 200, "10.1.2.3"),
            ("fd00::1:2", 64, "fd00::"),
            ("fd00::1:2", 128, "fd00::1:2"),
            ("fd00::1:2", 0, "::"),
        ] {
            assert_eq!(
                prefix(address, length).masked(),
                prefix(masked, length),
                "{address}/{length}"
            );
        }
    }

    #[test]
    fn contains() {
        let inside = |address: &str| prefix("10.1.2.3", 24).contains(address.parse().unwrap());
        assert!(inside("10.1.2.200") && !inside("10.1.3.3") && !inside("::ffff:10.1.2.3"));
        assert!(prefix("::", 0).contains("fd00::1".parse().unwrap()));
    }
}
