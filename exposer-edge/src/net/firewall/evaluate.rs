//! Walks a ruleset as the kernel would.

use exposer_common::model::Protocol;

use super::model::{Chain, Hook, Maker, Match, Packet, Rule, Sense, Table, Verdict};
use super::{Blocker, Redirected};
use crate::config::PortRange;

/// The kernel allows no deeper jumps (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: u8 = 16;

/// What a chain says of a packet.
enum Outcome<'a> {
    Accept,
    /// Dropped or rejected by this rule of this chain.
    Drop(&'a Chain, &'a Rule),
    /// The chain ended without a verdict.
    End,
}

/// What would keep `packet` from a socket of this host. Each base chain is asked: an accept in one does not spare the
/// packet the others.
pub(super) fn blocks(tables: &[Table], packet: &Packet) -> Option<Blocker> {
    let seeing = tables
        .iter()
        .filter(|table| table.family.sees(packet.destination));
    seeing.into_iter().find_map(|table| {
        let inputs = table.chains.iter().filter_map(|chain| match &chain.base {
            Some(base) if base.hook == Hook::Input => Some((chain, base.drops)),
            _ => None,
        });
        inputs
            .into_iter()
            .find_map(|(chain, drops)| match walk(table, chain, packet, 0) {
                Outcome::Drop(in_chain, rule) => Some(blocker(table, in_chain, &rule.text, packet)),
                Outcome::End if drops => Some(blocker(table, chain, "policy drop", packet)),
                Outcome::End | Outcome::Accept => None,
            })
    })
}

fn walk<'a>(table: &'a Table, chain: &'a Chain, packet: &Packet, depth: u8) -> Outcome<'a> {
    for rule in &chain.rules {
        if !rule.matches.iter().all(|condition| condition.holds(packet)) {
            continue;
        }
        let (target, is_goto) = match &rule.verdict {
            // A translated packet is not one for a socket of this host; that is reported by `redirected`.
            Verdict::Accept | Verdict::Translate => return Outcome::Accept,
            Verdict::Drop => return Outcome::Drop(chain, rule),
            Verdict::Return => return Outcome::End,
            Verdict::Continue => continue,
            Verdict::Jump(target) => (target, false),
            Verdict::Goto(target) => (target, true),
        };
        let called = table.chain(target).filter(|_| depth < DEEPEST);
        let outcome = called.map_or(Outcome::End, |called| {
            walk(table, called, packet, depth.saturating_add(1))
        });
        if is_goto || !matches!(outcome, Outcome::End) {
            return outcome;
        }
    }
    Outcome::End
}

fn blocker(table: &Table, chain: &Chain, rule: &str, packet: &Packet) -> Blocker {
    let place = format!(
        "table {} {}, chain {}",
        table.family.as_str(),
        table.name,
        chain.name
    );
    Blocker {
        rule: format!("{place}: {rule}"),
        remedy: remedy(table, chain, packet),
    }
}

/// A command that lets the packet in, in the words of the tool that made the table.
fn remedy(table: &Table, chain: &Chain, packet: &Packet) -> String {
    let (port, protocol) = (packet.port, packet.protocol);
    let by_ufw = table
        .chains
        .iter()
        .any(|chain| chain.name.starts_with("ufw-") || chain.name.starts_with("ufw6-"));
    if by_ufw {
        return format!("ufw allow {port}/{protocol}");
    }
    if table.name == "firewalld" {
        return format!("firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload");
    }
    match table.maker {
        Maker::Iptables => {
            let tool = if packet.destination.is_ipv6() {
                "ip6tables"
            } else {
                "iptables"
            };
            format!("{tool} -I INPUT -p {protocol} --dport {port} -j ACCEPT")
        }
        Maker::Nft => {
            let family = table.family.as_str();
            let base = table
                .chains
                .iter()
                .find(|chain| chain.base.as_ref().is_some_and(|base| base.hook == Hook::Input));
            let chain = base.map_or(&chain.name, |base| &base.name);
            format!(
                "nft insert rule {family} {} {chain} {protocol} dport {port} accept",
                table.name
            )
        }
    }
}

/// Ports that nat rules send elsewhere. A rule without a port is left out: what it takes depends on addresses, and
/// refusing every port of the host for it would help nobody.
pub(super) fn redirected(tables: &[Table]) -> Vec<Redirected> {
    let mut found = Vec::new();
    for table in tables {
        let bases = table.chains.iter().filter(|chain| {
            chain
                .base
                .as_ref()
                .is_some_and(|base| base.hook == Hook::PreroutingNat)
        });
        for chain in bases {
            collect(table, chain, &[], 0, &mut found);
        }
    }
    found
}

/// Rules of `chain` and of those that it calls, under the conditions of the callers.
fn collect<'a>(
    table: &'a Table,
    chain: &'a Chain,
    above: &[&'a Match],
    depth: u8,
    found: &mut Vec<Redirected>,
) {
    for rule in &chain.rules {
        let conditions: Vec<&Match> = above.iter().copied().chain(&rule.matches).collect();
        match &rule.verdict {
            Verdict::Translate => {
                let (family, name) = (table.family.as_str(), &table.name);
                let place = format!("table {family} {name}, chain {}: {}", chain.name, rule.text);
                let ports = ports_of(&conditions).into_iter();
                found.extend(ports.map(|(protocol, ports)| Redirected {
                    protocol,
                    ports,
                    rule: place.clone(),
                }));
            }
            Verdict::Jump(target) | Verdict::Goto(target) if depth < DEEPEST => {
                if let Some(called) = table.chain(target) {
                    collect(table, called, &conditions, depth.saturating_add(1), found);
                }
            }
            _ => {}
        }
    }
}

/// The ports that conditions name, with their protocol; none if they hold for the host itself alone.
fn ports_of(conditions: &[&Match]) -> Vec<(Option<Protocol>, PortRange)> {
    let mut protocol = None;
    let mut ports: Option<&Vec<PortRange>> = None;
    for condition in conditions {
        match condition {
            Match::Protocol(protocols, Sense::In) => match protocols.as_slice() {
                [] => return Vec::new(),
                [one] => protocol = Some(*one),
                _ => {}
            },
            Match::Port(ranges, Sense::In) => ports = Some(ranges),
            Match::Interface(names, Sense::In) if names.iter().all(|name| name == "lo") => return Vec::new(),
            Match::Destination(prefixes, Sense::In) if prefixes.iter().all(|p| p.address.is_loopback()) => {
                return Vec::new();
            }
            _ => {}
        }
    }
    ports
        .into_iter()
        .flatten()
        .map(|range| (protocol, *range))
        .collect()
}
