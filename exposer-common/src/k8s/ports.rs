//! The port list of the `ports` annotation.
//!
//! ```text
//! list      = entry *( "," entry )
//! entry     = ( port [ ":" service ] | port "-" port ) "/" protocols
//! service   = port | name                    a port of the Service, by number or by name
//! protocols = "tcp" | "udp" | "tcp+udp"
//! port      = 1 to 65535, decimal, without leading zeros
//! ```
//!
//! White space may stand around every part, and protocols may be in capitals, as Kubernetes writes them.
//!
//! * `25565/tcp`: public port 25565, to the Service's port 25565.
//! * `8080:80/tcp`, `8080:http/tcp`: public port 8080, to the Service's port 80, or to the one named `http`.
//! * `27000-27015/udp`: sixteen public ports, each to the Service's port of the same number.
//! * `25565/tcp+udp`: one port with both protocols. If either is taken at the edge, *both* move to another number.
//! * `25565/tcp, 25565/udp`: two entries, so two ports that are placed *apart*: if UDP is taken, TCP keeps its number.
//!
//! The last two differ on purpose: what a person writes as one stays one, what he writes apart is apart.

use std::collections::BTreeSet;
use std::fmt;

pub use super::ports_error::{PortsError, PortsProblem};
use super::suggest::{Suggestion, nearest};
use crate::model::{MAX_PORTS, Protocol, is_dns_label, shorten};

/// Longest port list, in bytes.
pub const MAX_TEXT: usize = 4_096;

/// Protocols of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocols {
    /// `tcp`.
    Tcp,
    /// `udp`.
    Udp,
    /// `tcp+udp`: both, on the same public number.
    Both,
}

impl Protocols {
    /// Whether `protocol` is one of them.
    #[must_use]
    pub const fn contains(self, protocol: Protocol) -> bool {
        matches!(
            (self, protocol),
            (Self::Both, _) | (Self::Tcp, Protocol::Tcp) | (Self::Udp, Protocol::Udp)
        )
    }

    /// Those of TCP and UDP that are among them, TCP first.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL
            .into_iter()
            .filter(move |protocol| self.contains(*protocol))
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "tcp+udp",
        })
    }
}

/// A port of the Service, as the annotation names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServicePortRef {
    /// By `spec.ports[].port`.
    Number(u16),
    /// By `spec.ports[].name`.
    Name(String),
}

impl fmt::Display for ServicePortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One public port that is asked for; a range gives one for each of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSpec {
    /// The public port, 1–65535.
    pub public: u16,
    /// Where it leads.
    pub service: ServicePortRef,
    /// For which protocols.
    pub protocols: Protocols,
}

impl fmt::Display for PortSpec {
    /// In the grammar itself: `25565/tcp`, `8080:http/tcp+udp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.public)?;
        if self.service != ServicePortRef::Number(self.public) {
            write!(f, ":{}", self.service)?;
        }
        write!(f, "/{}", self.protocols)
    }
}

/// A piece of the annotation that knows where it stands.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    /// Byte offset in the whole.
    offset: usize,
}

impl<'a> Piece<'a> {
    fn trim(self) -> Self {
        let start = self.text.trim_start();
        let skipped = self.text.len().saturating_sub(start.len());
        Self {
            text: start.trim_end(),
            offset: self.offset.saturating_add(skipped),
        }
    }

    /// The pieces before and after the first `separator`.
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let offset = self
            .offset
            .saturating_add(before.len())
            .saturating_add(separator.len_utf8());
        Some((
            Self {
                text: before,
                offset: self.offset,
            }
            .trim(),
            Piece { text: after, offset }.trim(),
        ))
    }

    fn error(self, whole: &str, problem: PortsProblem) -> PortsError {
        let before = whole.get(..self.offset).unwrap_or(whole);
        PortsError {
            text: shorten(self.text),
            position: before.chars().count().saturating_add(1),
            problem,
        }
    }
}

/// Reads a port list.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn parse_ports(text: &str) -> Result<Vec<PortSpec>, PortsError> {
    let whole = Piece { text, offset: 0 }.trim();
    if whole.text.len() > MAX_TEXT {
        return Err(whole.error(text, PortsProblem::TooLong));
    }
    if whole.text.is_empty() {
        return Err(whole.error(text, PortsProblem::Empty));
    }
    let mut specs = Vec::new();
    let mut taken = BTreeSet::new();
    let mut rest = Some(whole);
    while let Some(piece) = rest {
        let (entry, after) = match piece.split_once(',') {
            Some((entry, after)) => (entry, Some(after)),
            None => (piece, None),
        };
        rest = after;
        let fail = |(at, problem): (Piece<'_>, PortsProblem)| at.error(text, problem);
        for spec in parse_entry(entry).map_err(fail)? {
            for protocol in spec.protocols.iter() {
                if !taken.insert((spec.public, protocol)) {
                    return Err(entry.error(
                        text,
                        PortsProblem::Duplicate {
                            port: spec.public,
                            protocol,
                        },
                    ));
                }
            }
            specs.push(spec);
        }
        if specs.len() > MAX_PORTS {
            return Err(entry.error(text, PortsProblem::TooMany(specs.len())));
        }
    }
    Ok(specs)
}

type Failure<'a> = (Piece<'a>, PortsProblem);

fn parse_entry(entry: Piece<'_>) -> Result<Vec<PortSpec>, Failure<'_>> {
    if entry.text.is_empty() {
        return Err((entry, PortsProblem::EmptyEntry));
    }
    let Some((ports, protocols)) = entry.split_once('/') else {
        return Err((entry, PortsProblem::NoProtocol(shorten(entry.text))));
    };
    let protocols = parse_protocols(protocols)?;
    if let Some((public, service)) = ports.split_once(':') {
        if service.text.contains(':') {
            return Err((ports, PortsProblem::Colons));
        }
        if public.text.contains('-') {
            return Err((ports, PortsProblem::MappedRange));
        }
        let service = parse_service(service)?;
        return Ok(vec![PortSpec {
            public: parse_port(public)?,
            service,
            protocols,
        }]);
    }
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (parse_port(first)?, parse_port(last)?),
        None => {
            let port = parse_port(ports)?;
            (port, port)
        }
    };
    if first > last {
        return Err((ports, PortsProblem::ReversedRange));
    }
    let count = usize::from(last.saturating_sub(first)).saturating_add(1);
    if count > MAX_PORTS {
        return Err((ports, PortsProblem::TooMany(count)));
    }
    Ok((first..=last)
        .map(|port| PortSpec {
            public: port,
            service: ServicePortRef::Number(port),
            protocols,
        })
        .collect())
}

fn parse_protocols(piece: Piece<'_>) -> Result<Protocols, Failure<'_>> {
    let one = |piece: Piece<'_>| {
        Protocol::ALL
            .into_iter()
            .find(|protocol| piece.text.eq_ignore_ascii_case(protocol.as_str()))
    };
    let unknown = || PortsProblem::Protocol(Suggestion(nearest(piece.text, &["tcp", "udp", "tcp+udp"])));
    match piece.split_once('+') {
        None => match one(piece) {
            Some(Protocol::Tcp) => Ok(Protocols::Tcp),
            Some(Protocol::Udp) => Ok(Protocols::Udp),
            None => Err((piece, unknown())),
        },
        Some((left, right)) => match (one(left), one(right)) {
            (Some(left), Some(right)) if left != right => Ok(Protocols::Both),
            (Some(_), Some(_)) => Err((piece, PortsProblem::SameProtocol)),
            _ => Err((piece, unknown())),
        },
    }
}

fn parse_port(piece: Piece<'_>) -> Result<u16, Failure<'_>> {
    let digits = piece.text;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((piece, PortsProblem::Port));
    }
    let significant = digits.trim_start_matches('0');
    match significant.parse::<u16>() {
        Ok(port) if significant.len() == digits.len() => Ok(port),
        Ok(port) => Err((piece, PortsProblem::LeadingZero(port.to_string()))),
        Err(_) => Err((piece, PortsProblem::Port)),
    }
}

fn parse_service(piece: Piece<'_>) -> Result<ServicePortRef, Failure<'_>> {
    if !piece.text.is_empty() && piece.text.bytes().all(|byte| byte.is_ascii_digit()) {
        return parse_port(piece).map(ServicePortRef::Number);
    }
    if is_dns_label(piece.text) {
        return Ok(ServicePortRef::Name(piece.text.to_owned()));
    }
    Err((piece, PortsProblem::ServicePort))
}
