//! From the ports that an annotation names to the ports that the Service has.

use std::fmt;

use thiserror::Error;

use super::ports::{PortSpec, ServicePortRef};
use crate::model::{PortRecord, Protocol, ServicePort};

/// One entry of `spec.ports` of a Service; protocols other than TCP and UDP are left out by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortInfo {
    /// `name`; a Service with a single port need not have one.
    pub name: Option<String>,
    /// `port`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `targetPort`, where it is a number.
    pub target_port: Option<u16>,
    /// `nodePort`, where there is one.
    pub node_port: Option<u16>,
}

impl fmt::Display for ServicePortInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)?;
        match &self.name {
            Some(name) if !name.is_empty() => write!(f, " ({name})"),
            _ => Ok(()),
        }
    }
}

/// The Service has no such port.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("\"{spec}\": the Service has no {protocol} port {wanted}{hint}; it offers {offers}")]
pub struct ResolveError {
    /// The entry of the annotation.
    pub spec: String,
    /// The port that is missing: a number, or a name in quotes.
    pub wanted: String,
    /// The protocol for which it is missing.
    pub protocol: Protocol,
    /// What was probably meant, or nothing.
    pub hint: String,
    /// What the Service has.
    pub offers: String,
}

/// Matches each spec with the Service's ports; one record for each spec, in order.
///
/// # Errors
///
/// The first spec that names a port which the Service does not have, with what it has.
pub fn resolve(specs: &[PortSpec], offered: &[ServicePortInfo]) -> Result<Vec<PortRecord>, ResolveError> {
    specs.iter().map(|spec| resolve_one(spec, offered)).collect()
}

fn resolve_one(spec: &PortSpec, offered: &[ServicePortInfo]) -> Result<PortRecord, ResolveError> {
    let side = |protocol: Protocol| {
        if !spec.protocols.contains(protocol) {
            return Ok(None);
        }
        let found = offered
            .iter()
            .find(|info| info.protocol == protocol && names(&spec.service, info));
        match found {
            Some(info) => Ok(Some(ServicePort {
                service_port: info.port,
                target_port: info.target_port,
                node_port: info.node_port,
            })),
            None => Err(missing(spec, protocol, offered)),
        }
    };
    Ok(PortRecord {
        public_port: spec.public,
        tcp: side(Protocol::Tcp)?,
        udp: side(Protocol::Udp)?,
    })
}

fn names(reference: &ServicePortRef, info: &ServicePortInfo) -> bool {
    match reference {
        ServicePortRef::Number(number) => info.port == *number,
        ServicePortRef::Name(name) => info.name.as_deref() == Some(name),
    }
}

fn missing(spec: &PortSpec, protocol: Protocol, offered: &[ServicePortInfo]) -> ResolveError {
    let wanted = match &spec.service {
        ServicePortRef::Number(number) => number.to_string(),
        ServicePortRef::Name(name) => format!("named \"{name}\""),
    };
    let offers = match offered {
        [] => "neither TCP nor UDP ports".to_owned(),
        _ => offered
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    ResolveError {
        spec: spec.to_string(),
        wanted,
        protocol,
        hint: hint(spec, protocol, offered),
        offers,
    }
}

/// The usual slips: the number of the pod or of the node instead of that of the Service, and the wrong protocol.
fn hint(spec: &PortSpec, protocol: Protocol, offered: &[ServicePortInfo]) -> String {
    let same_protocol = || offered.iter().filter(|info| info.protocol == protocol);
    if let ServicePortRef::Number(number) = spec.service {
        let meant = |info: &ServicePortInfo| format!("write {}:{}/{protocol}", spec.public, info.port);
        if let Some(info) = same_protocol().find(|info| info.target_port == Some(number)) {
            return format!(" ({number} is a targetPort; {})", meant(info));
        }
        if let Some(info) = same_protocol().find(|info| info.node_port == Some(number)) {
            return format!(" ({number} is a nodePort; {})", meant(info));
        }
    }
    match offered.iter().find(|info| names(&spec.service, info)) {
        Some(info) => format!(" (only {})", info.protocol),
        None => String::new(),
    }
}
