//! From what was listed to the [`Environment`]: a pure function.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::LinkSettings;
use super::dump::{Address, Dump, Link, Route};
use crate::net::environment::{Environment, LinkState, Prefix};

/// The kernel's main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;
/// Routes this wide are default routes: 0.0.0.0/0, or the two halves that some VPN tools lay over it.
const WIDEST_HOME: u8 = 2;

/// The host's network as the datapaths need it.
pub(super) fn environment(settings: &LinkSettings, dump: &Dump) -> Environment {
    let tunnel = find(dump, &settings.tunnel);
    let wan_name = settings
        .public_interface
        .clone()
        .or_else(|| default_interface(dump, tunnel))
        .unwrap_or_default();
    let wan = find(dump, &wan_name);
    let own: BTreeSet<IpAddr> = dump
        .addresses
        .iter()
        .map(|address| address.prefix.address)
        .collect();
    Environment {
        public_addresses: public_addresses(settings, dump, wan, &own),
        snat_address: settings.snat_address.or_else(|| first_ipv4(dump, tunnel)),
        home_prefixes: tunnel.map(|link| home_prefixes(dump, link)).unwrap_or_default(),
        wan: state(dump, &wan_name, wan),
        tunnel: state(dump, &settings.tunnel, tunnel),
        own_addresses: own.into_iter().collect(),
    }
}

fn find<'a>(dump: &'a Dump, name: &str) -> Option<&'a Link> {
    dump.links
        .iter()
        .find(|link| link.name == name && !name.is_empty())
}

fn of_link<'a>(dump: &'a Dump, link: &Link) -> impl Iterator<Item = &'a Address> + use<'a> {
    let index = link.index;
    dump.addresses
        .iter()
        .filter(move |address| address.index == index)
}

/// Default routes of the main table, the preferred first: IPv4 before IPv6, then by metric, then as listed.
fn default_routes(dump: &Dump) -> Vec<&Route> {
    let mut routes: Vec<&Route> = dump
        .routes
        .iter()
        .filter(|route| route.table == MAIN && route.destination.length == 0)
        .collect();
    routes.sort_by_key(|route| (route.destination.address.is_ipv6(), route.metric));
    routes
}

/// Name of the interface that the default route leaves by, the tunnel aside.
fn default_interface(dump: &Dump, tunnel: Option<&Link>) -> Option<String> {
    let tunnel = tunnel.map(|link| link.index);
    let route = default_routes(dump)
        .into_iter()
        .find(|route| Some(route.index) != tunnel)?;
    let link = dump.links.iter().find(|link| link.index == route.index)?;
    Some(link.name.clone())
}

fn state(dump: &Dump, name: &str, link: Option<&Link>) -> LinkState {
    let Some(link) = link else {
        return LinkState {
            name: name.to_owned(),
            ..LinkState::default()
        };
    };
    let mut addresses: Vec<Prefix> = of_link(dump, link).map(|address| address.prefix).collect();
    addresses.sort_unstable();
    LinkState {
        name: name.to_owned(),
        ifindex: link.up.then_some(link.index),
        mtu: link.mtu,
        ethernet: link.ethernet,
        addresses,
        gateway: default_routes(dump)
            .iter()
            .find(|route| route.index == link.index && route.destination.address.is_ipv4())
            .and_then(|route| route.gateway),
    }
}

/// Addresses that public ports are served on: those given that this host has; else (none given, or a cloud that
/// translates the given one) the lasting global ones of the public interface.
fn public_addresses(
    settings: &LinkSettings,
    dump: &Dump,
    wan: Option<&Link>,
    own: &BTreeSet<IpAddr>,
) -> Vec<IpAddr> {
    let given: BTreeSet<IpAddr> = settings.public_addresses.iter().copied().collect();
    let held: Vec<IpAddr> = given.intersection(own).copied().collect();
    if !held.is_empty() {
        return held;
    }
    let Some(wan) = wan else { return Vec::new() };
    let addresses: BTreeSet<IpAddr> = of_link(dump, wan)
        .filter(|address| address.global && address.lasting)
        .map(|address| address.prefix.address)
        .collect();
    addresses.into_iter().collect()
}

fn first_ipv4(dump: &Dump, link: Option<&Link>) -> Option<Ipv4Addr> {
    of_link(dump, link?).find_map(|address| match address.prefix.address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    })
}

/// Prefixes behind the tunnel: its own, and those routed through it in any table.
fn home_prefixes(dump: &Dump, tunnel: &Link) -> Vec<Prefix> {
    let routed = dump
        .routes
        .iter()
        .filter(|route| route.index == tunnel.index)
        .map(|route| route.destination);
    let prefixes: BTreeSet<Prefix> = of_link(dump, tunnel)
        .map(|address| address.prefix)
        .chain(routed)
        .filter(|prefix| prefix.length >= WIDEST_HOME && !is_link_local(prefix.address))
        .map(Prefix::masked)
        .collect();
    prefixes.into_iter().collect()
}

/// Link-local and multicast prefixes stand on every interface and say nothing of home.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
