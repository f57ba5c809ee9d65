//! What the holder of one token may publish: namespaces, subdomains, public ports, and how many of them.
//!
//! An empty list sets no limit. The values are part of a token's file ([`crate::token_store`]); the registry enforces
//! the ports, the core everything else.

use exposer_common::model::{ServiceId, ServiceRecord, is_dns_label};
use exposer_common::proto::message::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};

use crate::config::PortRange;

/// See the [module](self). The default limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Namespaces whose Services are let in.
    pub namespaces: Vec<Name>,
    /// Subdomains that may be claimed.
    pub subdomains: Vec<Pattern>,
    /// Public ports that may be had, substitutes for taken ones included.
    pub ports: Vec<Ports>,
    /// How many public ports at a time; TCP and UDP of one number count as two.
    pub max_ports: Option<u32>,
}

/// A namespace: a DNS label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A subdomain, or a pattern with one `*` for any text: `shop`, `cabin-*`, `*-cabin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// One public port or a range of them: `443`, `20000-20999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(PortRange);

impl Limits {
    /// Whether Services of this namespace and subdomain are let in.
    ///
    /// # Errors
    ///
    /// What to tell the agent where they are not.
    pub fn judge(&self, agent: &str, record: &ServiceRecord) -> Result<(), Refusal> {
        let ServiceId { namespace, .. } = &record.id;
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(|Name(name)| name == namespace) {
            let allowed = join(&self.namespaces);
            return Err(not_allowed(format!(
                "the token of agent {agent} is not for namespace \"{namespace}\" but for {allowed}; move the Service, \
                 or have the edge's operator change the token (exposer-edge token add --replace)"
            )));
        }
        let subdomain = &record.subdomain;
        if !self.subdomains.is_empty() && !self.subdomains.iter().any(|pattern| pattern.holds(subdomain)) {
            let allowed = join(&self.subdomains);
            return Err(not_allowed(format!(
                "the token of agent {agent} is not for subdomain \"{subdomain}\" but for {allowed}; choose such a \
                 one, or have the edge's operator change the token (exposer-edge token add --replace)"
            )));
        }
        Ok(())
    }

    /// Whether `port` may be had at all.
    #[must_use]
    pub fn allows_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|Ports(range)| range.contains(port))
    }

    /// The refusal of a port that the token is not for.
    #[must_use]
    pub fn port_refusal(&self, agent: &str, port: u16) -> Refusal {
        not_allowed(format!(
            "the token of agent {agent} is not for public port {port} but for {}; ask for such a one, or have the \
             edge's operator change the token (exposer-edge token add --replace)",
            join(&self.ports)
        ))
    }

    /// The refusal of a port beyond the number that the token is for.
    #[must_use]
    pub fn count_refusal(&self, agent: &str, port: u16) -> Refusal {
        not_allowed(format!(
            "the token of agent {agent} is for {} public ports (TCP and UDP count each), and they are in use, so port \
             {port} is not given; delete a Service, or have the edge's operator change the token \
             (exposer-edge token add --replace)",
            self.max_ports.unwrap_or(u32::MAX)
        ))
    }

    /// The refusal where a wished port is taken and the token is for no free port that could be given instead.
    #[must_use]
    pub fn substitute_refusal(&self, agent: &str, taken: &Refusal) -> Refusal {
        not_allowed(format!(
            "{}; of the ports that the token of agent {agent} is for ({}), none in that range is free",
            taken.text,
            join(&self.ports)
        ))
    }
}

/// The items as people read them, separated by commas; `any` where there are none.
#[must_use]
pub fn join<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "any".to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

const fn not_allowed(text: String) -> Refusal {
    Refusal {
        code: RefusalCode::NotAllowed,
        text,
    }
}

impl Pattern {
    /// Whether `subdomain` is meant.
    #[must_use]
    pub fn holds(&self, subdomain: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0 == subdomain,
            Some((before, after)) => subdomain
                .strip_prefix(before)
                .is_some_and(|rest| rest.ends_with(after)),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_dns_label(&text) {
            Ok(Self(text))
        } else {
            Err(format!(
                "\"{}\" is no namespace",
                exposer_common::model::shorten(&text)
            ))
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '*');
        if !text.is_empty() && text.len() <= 253 && text.chars().all(sound) && text.matches('*').count() <= 1
        {
            Ok(Self(text))
        } else {
            let shown = exposer_common::model::shorten(&text);
            Err(format!(
                "\"{shown}\" is no subdomain and no pattern with one *, like cabin-*"
            ))
        }
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let range = match text.trim().parse::<u16>() {
            Ok(port) => PortRange::new(port, port),
            Err(_) => text.parse(),
        };
        range.map(Self).map_err(|error| error.to_string())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.first() == self.0.last() {
            write!(f, "{}", self.0.first())
        } else {
            write!(f, "{}", self.0)
        }
    }
}
