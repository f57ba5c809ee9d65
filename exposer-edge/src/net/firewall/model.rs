//! A ruleset as far as it matters here, whatever tool it came from.

use std::net::IpAddr;

use exposer_common::model::Protocol;

use crate::config::PortRange;
use crate::net::environment::Prefix;

/// The first packet of a connection from anybody on the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface that it comes in by.
    pub interface: String,
    /// The address that it is sent to, one of this host.
    pub destination: IpAddr,
    /// The port that it is sent to.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// Its name, as `nft` has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }

    /// Whether a table of this family sees packets to `address`.
    pub(super) const fn sees(self, address: IpAddr) -> bool {
        match self {
            Self::Ip => address.is_ipv4(),
            Self::Ip6 => address.is_ipv6(),
            Self::Inet => true,
        }
    }
}

/// What made a table, for the command that mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    Nft,
    Iptables,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub family: Family,
    pub name: String,
    pub maker: Maker,
    pub chains: Vec<Chain>,
}

impl Table {
    pub(super) fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub name: String,
    /// What the kernel calls it for; none for one that rules jump to.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub hook: Hook,
    /// Whether its policy is to drop.
    pub drops: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// A filter before sockets of this host.
    Input,
    /// Address translation before routing.
    PreroutingNat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    pub verdict: Verdict,
    /// How a person finds it: `handle 12`, or the line of `iptables-save`.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The transport protocol is one of these, or none of these.
    Protocol(Vec<Protocol>, Sense),
    /// The destination port is in one of these, or in none.
    Port(Vec<PortRange>, Sense),
    /// The interface is one of these (`*` or `+` at the end: any that begins so), or none.
    Interface(Vec<String>, Sense),
    /// The destination is in one of these, or in none.
    Destination(Vec<Prefix>, Sense),
    /// Holds for every packet that is asked about.
    Always,
    /// Holds for none of them, or not for every sender.
    Never,
}

/// Whether a match wants its set or everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    In,
    NotIn,
}

impl Sense {
    const fn of(self, inside: bool) -> bool {
        match self {
            Self::In => inside,
            Self::NotIn => !inside,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// Destination changed: the packet goes elsewhere.
    Translate,
    /// Counts, logs, marks: the next rule is asked.
    Continue,
}

impl Match {
    /// Whether `packet` matches, whoever sent it.
    pub(super) fn holds(&self, packet: &Packet) -> bool {
        match self {
            Self::Protocol(protocols, sense) => sense.of(protocols.contains(&packet.protocol)),
            Self::Port(ranges, sense) => sense.of(ranges.iter().any(|range| range.contains(packet.port))),
            Self::Interface(names, sense) => {
                sense.of(names.iter().any(|name| same_interface(name, &packet.interface)))
            }
            Self::Destination(prefixes, sense) => {
                sense.of(prefixes.iter().any(|prefix| prefix.contains(packet.destination)))
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

fn same_interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(['*', '+']) {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}
