//! The host's network as the datapaths need it: a plain value, compared to see whether anything changed.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// Its address; bits beyond the length are kept as given (an interface address) or zero (a route).
    pub address: IpAddr,
    /// Its length in bits.
    pub length: u8,
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
