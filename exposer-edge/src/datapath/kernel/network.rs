//! From the host's network to the maps `LINKS` and `NETS`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use aya::maps::lpm_trie::Key;
use exposer_common::link::{LinkEntry, NetKind};

use super::error::bpf;
use super::maps::ConfigMaps;
use crate::datapath::DatapathError;
use crate::net::environment::{Environment, LinkState, Prefix};

/// IPv4 header and TCP header without options: what the MSS leaves of an MTU (RFC 9293 §3.7.1).
const HEADERS: u32 = 40;
/// The smallest MSS that is ever written: that of the smallest MTU which IPv4 allows, 68, would stall TCP for nothing.
const MIN_MSS: u32 = 88;

/// The cell of `LINKS` for an interface.
#[must_use]
pub fn link_entry(link: &LinkState) -> LinkEntry {
    let mss = link
        .mtu
        .saturating_sub(HEADERS)
        .clamp(MIN_MSS, u32::from(u16::MAX));
    LinkEntry {
        ifindex: link.ifindex.unwrap_or(0),
        mtu: link.mtu,
        next_hop: link.gateway.map_or([0; 4], |gateway| gateway.octets()),
        mss: u16::try_from(mss).unwrap_or(u16::MAX),
        pad: [0; 2],
    }
}

/// Every IPv4 prefix with what it says, in the order of precedence: an address of ours beats the home prefix that it
/// lies in, and home beats the public link.
#[must_use]
pub fn nets(environment: &Environment) -> BTreeMap<(Ipv4Addr, u8), NetKind> {
    let mut nets = BTreeMap::new();
    let mut add = |prefix: &Prefix, kind: NetKind| {
        let IpAddr::V4(address) = prefix.address else {
            return;
        };
        if prefix.length == 0 || prefix.length > 32 {
            return;
        }
        let mask = u32::MAX
            .checked_shl(32_u32.saturating_sub(u32::from(prefix.length)))
            .unwrap_or(0);
        nets.insert((Ipv4Addr::from(u32::from(address) & mask), prefix.length), kind);
    };
    for prefix in &environment.wan.addresses {
        add(prefix, NetKind::OnLink);
    }
    for prefix in environment
        .home_prefixes
        .iter()
        .chain(&environment.tunnel.addresses)
    {
        add(prefix, NetKind::Home);
    }
    for address in &environment.own_addresses {
        add(
            &Prefix {
                address: *address,
                length: 32,
            },
            NetKind::Own,
        );
    }
    nets
}

/// Brings `NETS` from what it holds to `wanted`, adding before removing.
///
/// # Errors
///
/// When the map can't be written; the call may be repeated.
pub fn sync_nets(
    maps: &mut ConfigMaps,
    wanted: &BTreeMap<(Ipv4Addr, u8), NetKind>,
) -> Result<(), DatapathError> {
    let key = |(address, length): &(Ipv4Addr, u8)| Key::new(u32::from(*length), address.octets());
    for (prefix, kind) in wanted {
        maps.nets
            .insert(&key(prefix), kind, 0)
            .map_err(bpf("writing the map NETS"))?;
    }
    let present: Vec<_> = maps
        .nets
        .keys()
        .collect::<Result<_, _>>()
        .map_err(bpf("reading the map NETS"))?;
    for found in present {
        let length = u8::try_from(found.prefix_len()).unwrap_or(u8::MAX);
        if !wanted.contains_key(&(Ipv4Addr::from(found.data()), length)) {
            maps.nets
                .remove(&found)
                .map_err(bpf("deleting from the map NETS"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn own_beats_home_beats_link() {
        let environment = Environment {
            wan: LinkState {
                addresses: vec![prefix("44.128.0.2/24")],
                ..LinkState::default()
            },
            tunnel: LinkState {
                addresses: vec![prefix("10.0.0.1/24")],
                ..LinkState::default()
            },
            home_prefixes: vec![
                prefix("10.96.0.0/16"),
                prefix("44.128.0.0/24"),
                prefix("0.0.0.0/0"),
            ],
            own_addresses: vec![
                "44.128.0.2".parse().unwrap(),
                "10.0.0.1".parse().unwrap(),
                "::1".parse().unwrap(),
            ],
            ..Environment::default()
        };
        let nets = nets(&environment);
        let kind = |text: &str| {
            let prefix = prefix(text);
            let IpAddr::V4(address) = prefix.address else {
                panic!("{text} is not IPv4")
            };
            nets.get(&(address, prefix.length)).copied()
        };
        assert_eq!(kind("10.96.0.0/16"), Some(NetKind::Home));
        assert_eq!(kind("10.0.0.0/24"), Some(NetKind::Home));
        assert_eq!(
            kind("44.128.0.0/24"),
            Some(NetKind::Home),
            "a home prefix on the public link stays home"
        );
        assert_eq!(kind("44.128.0.2/32"), Some(NetKind::Own));
        assert_eq!(
            kind("0.0.0.0/0"),
            None,
            "a default route through the tunnel says nothing"
        );
        assert_eq!(nets.len(), 5);
    }

    #[test]
    fn mss_follows_the_mtu() {
        let mss = |mtu| {
            link_entry(&LinkState {
                mtu,
                ..LinkState::default()
            })
            .mss
        };
        assert_eq!(mss(1420), 1380);
        assert_eq!(mss(1280), 1240);
        assert_eq!(mss(0), 88);
        assert_eq!(mss(100_000), u16::MAX);
    }
}
