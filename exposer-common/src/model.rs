//! The Service model: what an agent reports of a Kubernetes Service, and the rules that every record must pass.
//!
//! Records are plain data, as they stand on the wire; [`ServiceRecord::validate`] judges them. A record that fails is
//! refused alone: neither the frame that carries it nor another Service suffers.

use std::fmt;
use std::net::IpAddr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::service::L4Proto;

/// Longest DNS label (RFC 1035 §2.3.4), in bytes.
pub const MAX_LABEL: usize = 63;
/// Longest Kubernetes object name (RFC 1123 subdomain), in bytes.
pub const MAX_NAME: usize = 253;
/// Most public ports that one Service may ask for; a range counts each of its ports.
pub const MAX_PORTS: usize = 256;
/// Most node addresses in one record.
pub const MAX_NODE_ADDRESSES: usize = 64;

/// Transport protocol of a port on the wire and in state files.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both, in the order in which they are reported.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Lower-case name: `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Protocol> for L4Proto {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<L4Proto> for Protocol {
    fn from(proto: L4Proto) -> Self {
        match proto {
            L4Proto::Tcp => Self::Tcp,
            L4Proto::Udp => Self::Udp,
        }
    }
}

/// A Service within its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct ServiceId {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which address of the cluster the edge sends a Service's packets to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// The first of the others that the Service has.
    #[default]
    Auto,
    /// The Service's ClusterIP and service port.
    ClusterIp,
    /// A node's InternalIP and the node port.
    NodePort,
    /// The endpoints themselves.
    PodIp,
}

/// What the pod sees as the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientIp {
    /// The best that the path can do.
    #[default]
    Auto,
    /// The client's own address, unchanged.
    Transparent,
    /// The edge's tunnel address (masquerade).
    Snat,
    /// The edge's address, and the client's in a PROXY protocol v1 header.
    ProxyV1,
    /// The edge's address, and the client's in a PROXY protocol v2 header.
    ProxyV2,
}

/// The cluster side of one public port, for one protocol. All four numbers may differ (public, service, target, node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct ServicePort {
    /// `spec.ports[].port`.
    pub service_port: u16,
    /// `spec.ports[].targetPort`, where it is a number.
    pub target_port: Option<u16>,
    /// `spec.ports[].nodePort`, where the Service has one.
    pub node_port: Option<u16>,
}

/// One public port that a Service asks for. Where both protocols are present they get the same number, or both move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct PortRecord {
    /// The port that the user asked for, 1–65535.
    pub public_port: u16,
    /// Where its TCP goes.
    pub tcp: Option<ServicePort>,
    /// Where its UDP goes.
    pub udp: Option<ServicePort>,
}

impl PortRecord {
    /// The cluster side for `protocol`, if it was asked for.
    #[must_use]
    pub const fn side(&self, protocol: Protocol) -> Option<ServicePort> {
        match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
        }
    }
}

/// What an agent reports of one annotated Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Namespace and name.
    pub id: ServiceId,
    /// Kubernetes uid: a Service that was deleted and made again is another one.
    pub uid: String,
    /// `creationTimestamp`, seconds since 1970; decides between claims that nobody holds yet (DESIGN §5).
    pub created: u64,
    /// The name under the cluster domain: one DNS label.
    pub subdomain: String,
    /// The public ports, at least one.
    pub ports: Vec<PortRecord>,
    /// `spec.clusterIP`, unless the Service is headless.
    pub cluster_ip: Option<IpAddr>,
    /// InternalIPs of ready nodes, in the order of preference.
    pub node_addresses: Vec<IpAddr>,
    /// Which of the addresses to use.
    pub target: TargetKind,
    /// What the pod is to see as the client.
    pub client_ip: ClientIp,
    /// Idle timeout in seconds that replaces the default of the protocol.
    pub idle_timeout: Option<u32>,
}

/// Why a record is refused. The text names the field and quotes what is wrong with it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// Namespace or name is empty, too long, or has characters that Kubernetes does not allow.
    #[error("{field} \"{text}\" is not a Kubernetes name (a-z, 0-9, '-' and '.', at most {MAX_NAME} bytes)")]
    Name {
        /// Which field.
        field: &'static str,
        /// What it held, shortened.
        text: String,
    },
    /// The subdomain is no DNS label.
    #[error(
        "subdomain \"{0}\" is not a DNS label: use a-z, 0-9 and '-', not at either end, at most {MAX_LABEL} characters"
    )]
    Subdomain(String),
    /// No port at all.
    #[error("the record asks for no port")]
    NoPorts,
    /// More ports than one Service may have.
    #[error("the record asks for {0} ports; at most {MAX_PORTS} are allowed for one Service")]
    TooManyPorts(usize),
    /// A port that is 0.
    #[error("port 0 is not a port (1-65535)")]
    PortZero,
    /// A port without a protocol.
    #[error("port {0} names neither tcp nor udp")]
    NoProtocol(u16),
    /// The same public port twice for one protocol.
    #[error("port {port}/{protocol} is asked for twice")]
    DuplicatePort {
        /// The public port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// More node addresses than a record may have.
    #[error("the record names {0} node addresses; at most {MAX_NODE_ADDRESSES} are allowed")]
    TooManyNodeAddresses(usize),
    /// A target that packets must not be sent to.
    #[error("target address {0} is not a unicast address of a cluster")]
    TargetAddress(IpAddr),
    /// Neither a cluster IP nor a node address.
    #[error("the Service has neither a ClusterIP nor a node address that the edge could send to")]
    NoTarget,
}

/// Whether `text` is one DNS label as Exposer takes it: lower case, RFC 1035 with RFC 1123's leading digit.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_LABEL
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

fn is_kubernetes_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.split('.').all(is_dns_label)
}

/// At most the first 80 characters of `text`, for an error message.
#[must_use]
pub fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether packets may be sent to `address` in the name of a Service: unicast, and neither loopback, link-local,
/// unspecified nor broadcast.
#[must_use]
pub fn is_target_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

impl ServiceRecord {
    /// Checks every rule that does not depend on other records.
    ///
    /// # Errors
    ///
    /// The first rule that the record breaks.
    pub fn validate(&self) -> Result<(), RecordError> {
        for (field, text) in [("namespace", &self.id.namespace), ("name", &self.id.name)] {
            if !is_kubernetes_name(text) {
                return Err(RecordError::Name {
                    field,
                    text: shorten(text),
                });
            }
        }
        if self.uid.len() > MAX_NAME {
            return Err(RecordError::Name {
                field: "uid",
                text: shorten(&self.uid),
            });
        }
        if !is_dns_label(&self.subdomain) {
            return Err(RecordError::Subdomain(shorten(&self.subdomain)));
        }
        self.validate_ports()?;
        self.validate_addresses()
    }

    fn validate_ports(&self) -> Result<(), RecordError> {
        if self.ports.is_empty() {
            return Err(RecordError::NoPorts);
        }
        if self.ports.len() > MAX_PORTS {
            return Err(RecordError::TooManyPorts(self.ports.len()));
        }
        let mut seen = std::collections::BTreeSet::new();
        for port in &self.ports {
            if port.public_port == 0 {
                return Err(RecordError::PortZero);
            }
            if port.tcp.is_none() && port.udp.is_none() {
                return Err(RecordError::NoProtocol(port.public_port));
            }
            for protocol in Protocol::ALL {
                let Some(side) = port.side(protocol) else { continue };
                if side.service_port == 0 || side.target_port == Some(0) || side.node_port == Some(0) {
                    return Err(RecordError::PortZero);
                }
                if !seen.insert((port.public_port, protocol)) {
                    return Err(RecordError::DuplicatePort {
                        port: port.public_port,
                        protocol,
                    });
                }
            }
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), RecordError> {
        if self.node_addresses.len() > MAX_NODE_ADDRESSES {
            return Err(RecordError::TooManyNodeAddresses(self.node_addresses.len()));
        }
        for address in self.cluster_ip.iter().chain(&self.node_addresses) {
            if !is_target_address(*address) {
                return Err(RecordError::TargetAddress(*address));
            }
        }
        if self.cluster_ip.is_none() && self.node_addresses.is_empty() {
            return Err(RecordError::NoTarget);
        }
        Ok(())
    }
}
