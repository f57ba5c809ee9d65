//! Whether the host's firewall stands in the way of the userspace path, of agents, or of WireGuard.

use std::collections::BTreeSet;
use std::net::IpAddr;

use exposer_common::model::Protocol;

use super::facts::Facts;
use super::report::Row;
use crate::config::Config;
use crate::datapath::BindingKey;
use crate::net::firewall::first_packet;

pub(super) fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let mut rows = vec![public_ports(config, facts), control_port(config, facts)];
    rows.extend(facts.firewall.notes.iter().map(|note| {
        let remedy = "without it, check can't tell whether a firewall blocks public ports";
        Row::new("firewall-tools").warn(note.clone(), remedy)
    }));
    rows
}

/// The ports that the running daemon serves, else the first of the dynamic range.
fn ports(config: &Config, facts: &Facts) -> BTreeSet<BindingKey> {
    let served: BTreeSet<BindingKey> = facts
        .daemon
        .iter()
        .flat_map(|status| &status.services)
        .flat_map(|service| &service.ports)
        .filter_map(|port| {
            Some(BindingKey {
                port: port.public_port?,
                protocol: port.protocol,
            })
        })
        .collect();
    if !served.is_empty() {
        return served;
    }
    let first = |protocol| BindingKey {
        port: config.dynamic_ports.first(),
        protocol,
    };
    Protocol::ALL.into_iter().map(first).collect()
}

fn public_ports(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("firewall");
    let asked = ports(config, facts);
    let wan = &facts.environment.wan.name;
    let mut found = BTreeSet::new();
    let mut remedies = BTreeSet::new();
    for key in &asked {
        for address in &facts.environment.public_addresses {
            if let Some(blocker) = facts
                .firewall
                .blocks(&first_packet(wan, *address, key.port, key.protocol))
            {
                found.insert(format!("{key} is blocked by {}", blocker.rule));
                remedies.insert(blocker.remedy);
            }
        }
    }
    if found.is_empty() {
        let list: Vec<String> = asked.iter().map(ToString::to_string).collect();
        return row.ok(format!("no rule in the way of {}", list.join(", ")));
    }
    let text = |parts: BTreeSet<String>, between| parts.into_iter().collect::<Vec<_>>().join(between);
    let warning = "the userspace path and new kernel-path ports depend on it; for each public port: ";
    row.warn(text(found, "; "), format!("{warning}{}", text(remedies, "; ")))
}

/// Agents come in by the tunnel.
fn control_port(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("firewall-control");
    let address: IpAddr = config.listen.ip();
    let packet = first_packet(
        &config.wireguard_interface,
        address,
        config.listen.port(),
        Protocol::Tcp,
    );
    match facts.firewall.blocks(&packet) {
        Some(blocker) => row.fail(
            format!(
                "agents can't reach {} through {}: {}",
                config.listen, packet.interface, blocker.rule
            ),
            blocker.remedy,
        ),
        None => row.ok(format!(
            "no rule keeps agents from {} through {}",
            config.listen, packet.interface
        )),
    }
}
