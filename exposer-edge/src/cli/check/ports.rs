//! Addresses and ports that the edge wants, and who has them.

use std::net::{IpAddr, SocketAddr};

use exposer_common::model::Protocol;

use super::facts::Facts;
use super::report::Row;
use crate::config::{self, Config, DatapathChoice};
use crate::net::listeners::Listener;
use crate::net::reserved;

pub(super) fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    vec![
        listen(config, facts),
        admin(config, facts),
        snat_range(config, facts),
        dynamic_ports(config, facts),
        in_use(config, facts),
    ]
}

/// Who else has `address`, if somebody has.
fn taken(facts: &Facts, address: SocketAddr) -> Option<&Listener> {
    facts.listeners.iter().find(|listener| {
        listener.protocol == Protocol::Tcp
            && listener.address.port() == address.port()
            && (listener.covers(address.ip()) || address.ip().is_unspecified())
            && !facts.is_daemon(listener)
    })
}

fn listen(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("listen-address");
    let address = config.listen;
    if let Some(listener) = taken(facts, address) {
        let remedy = "stop it, or choose another port: EXPOSER_LISTEN_ADDR here and SERVER_ADDR at the agent";
        return row.fail(format!("{address} is in use by {}", listener.describe()), remedy);
    }
    let held = address.ip().is_unspecified()
        || address.ip().is_loopback()
        || facts.environment.own_addresses.contains(&address.ip());
    if held {
        return row.ok(format!("{address} is free for agents, or has the running daemon"));
    }
    let remedy =
        "it belongs on the WireGuard interface: bring that up, or set EXPOSER_LISTEN_ADDR to its address";
    let found = format!("{} is not an address of this host", address.ip());
    // While the tunnel is down its address is not there either, and that row says so; the daemon waits for it.
    if facts.environment.tunnel.ifindex.is_none() {
        row.warn(found, remedy)
    } else {
        row.fail(found, remedy)
    }
}

fn admin(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("admin-address");
    match taken(facts, config.admin) {
        Some(listener) => row.fail(
            format!("{} is in use by {}", config.admin, listener.describe()),
            "stop it, or choose another port: EXPOSER_ADMIN_ADDR",
        ),
        None if facts.daemon.is_some() => row.ok(format!("the daemon answers on {}", config.admin)),
        None => row.ok(format!("{} is free", config.admin)),
    }
}

fn snat_range(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("snat-range");
    let range = config.snat_range;
    if config.datapath == DatapathChoice::Userspace {
        return row.ok("not used by --datapath userspace");
    }
    let local = match config::local_port_range() {
        Ok(local) => local,
        Err(error) => {
            return row.warn(
                format!("net.ipv4.ip_local_port_range can't be read: {error}"),
                "mount procfs on /proc",
            );
        }
    };
    if let Err(error) = config.check_host(local) {
        return row.fail(
            format!("{range} overlaps net.ipv4.ip_local_port_range {local}"),
            error.to_string(),
        );
    }
    let Some(address) = facts.environment.snat_address else {
        return row.ok(format!("{range}; its address is the tunnel's, once that is up"));
    };
    let mut bound: Vec<u16> = facts
        .listeners
        .iter()
        .filter(|listener| listener.covers(IpAddr::V4(address)) && range.contains(listener.address.port()))
        .map(|listener| listener.address.port())
        .collect();
    bound.sort_unstable();
    bound.dedup();
    let capacity = usize::from(range.count()).saturating_sub(bound.len());
    row.ok(format!(
        "{address} ports {range}, {} of them bound by this host: {capacity} connections to each backend",
        bound.len()
    ))
}

fn dynamic_ports(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("dynamic-ports");
    let range = config.dynamic_ports;
    let used = facts
        .listeners
        .iter()
        .filter(|listener| range.contains(listener.address.port()) && !facts.is_daemon(listener))
        .count();
    let found = format!("{range}, {used} in use by other programs");
    match config::local_port_range().ok().and_then(|local| range.intersection(local)) {
        Some(overlap) => row.warn(
            format!("{found}; {overlap} lie in net.ipv4.ip_local_port_range"),
            "outgoing connections of this host may hold such a port: choose EXPOSER_PORT_RANGE_START and _END outside of it",
        ),
        None => row.ok(found),
    }
}

/// Ports that no Service can have.
fn in_use(config: &Config, facts: &Facts) -> Row {
    let others: Vec<Listener> = facts
        .listeners
        .iter()
        .filter(|listener| !facts.is_daemon(listener))
        .cloned()
        .collect();
    let all = reserved::combine(config, &others, &facts.firewall);
    let list: Vec<String> = all
        .iter()
        .map(|(key, reason)| format!("{key} {reason}"))
        .collect();
    Row::new("reserved-ports").ok(format!("{} not for Services: {}", list.len(), list.join("; ")))
}
