//! What this host's own firewall does with public ports: which it sends elsewhere already (DNAT), and which it would
//! keep from the userspace path (a rule or policy that drops in INPUT).
//!
//! The kernel path works before the firewall; its fallback does not. A host whose firewall denies what is not named
//! therefore seems to work, until a connection needs the fallback (DESIGN §3). So `check` asks here.
//!
//! Rulesets are read from `nft -j list ruleset`, and from `iptables-save` for the tables that nft shows as opaque
//! (`xt`) and for the legacy tables that it does not show at all. They are *estimated*, for one packet that anybody on
//! the internet might send first: a rule that holds only for some sources, rates or marks counts as not matching.

mod evaluate;
mod iptables;
mod model;
mod nft;
mod tools;

use std::net::IpAddr;

use exposer_common::model::Protocol;

use model::Table;
pub use model::{Family, Packet};

use crate::config::PortRange;

/// The rules of this host, as far as they could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    tables: Vec<Table>,
    /// What could not be read, one sentence each.
    pub notes: Vec<String>,
}

/// Ports that the host's own nat rules send elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// TCP, UDP, or both.
    pub protocol: Option<Protocol>,
    /// The ports.
    pub ports: PortRange,
    /// Where the rule is, for a message.
    pub rule: String,
}

/// What keeps a packet from a socket of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Where the rule or policy is, for a message.
    pub rule: String,
    /// A command that would let the packet in.
    pub remedy: String,
}

/// Why a ruleset can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// Not the JSON of `nft -j list ruleset`.
    #[error("the output of `nft -j list ruleset` is not understood: {0}")]
    Nft(String),
}

impl Firewall {
    /// Reads the rules with the tools that are installed, in the network namespace of this process. A tool that is
    /// missing or fails leaves a note.
    pub async fn read() -> Self {
        tools::read().await
    }

    /// The rules in the output of `nft -j list ruleset`. Tables with rules that it shows as opaque are left out.
    ///
    /// # Errors
    ///
    /// When it is not that tool's JSON.
    pub fn from_nft(json: &str) -> Result<Self, FirewallError> {
        let parsed = nft::parse(json)?;
        Ok(Self {
            tables: parsed.tables,
            notes: Vec::new(),
        })
    }

    /// The rules in the output of `iptables-save` (`Family::Ip`) or `ip6tables-save` (`Family::Ip6`).
    #[must_use]
    pub fn from_iptables_save(family: Family, text: &str) -> Self {
        Self {
            tables: iptables::parse(family, text),
            notes: Vec::new(),
        }
    }

    /// Adds the rules of `other`.
    pub fn extend(&mut self, other: Self) {
        let Self { tables, notes } = other;
        self.tables.extend(tables);
        self.notes.extend(notes);
    }

    /// Ports that nat rules send elsewhere before a socket of this host could see them.
    #[must_use]
    pub fn redirected(&self) -> Vec<Redirected> {
        evaluate::redirected(&self.tables)
    }

    /// What would keep `packet` from a socket of this host, if anything.
    #[must_use]
    pub fn blocks(&self, packet: &Packet) -> Option<Blocker> {
        evaluate::blocks(&self.tables, packet)
    }
}

/// The first packet of a connection from anybody on the internet.
#[must_use]
pub fn first_packet(interface: &str, destination: IpAddr, port: u16, protocol: Protocol) -> Packet {
    Packet {
        interface: interface.to_owned(),
        destination,
        port,
        protocol,
    }
}

#[cfg(test)]
mod tests;
