//! From a Service as the API server has it to what the edge is told about it. Pure.

use std::net::IpAddr;

use exposer_common::k8s::{AnnotationError, AnnotationKeys, Request, ResolveError, ServicePortInfo, resolve};
use exposer_common::model::{Protocol, RecordError, ServiceId, ServiceRecord};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

/// Why an annotated Service is not exposed. The text is what its owner reads in an Event.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DiscoverError {
    /// The annotations themselves are wrong.
    #[error("{}", join(.0))]
    Annotations(Vec<AnnotationError>),
    /// A port of the annotation is none of the Service's.
    #[error("annotation {key}: {source}")]
    Ports {
        /// The whole key.
        key: String,
        /// Which port, and what there is instead.
        source: Box<ResolveError>,
    },
    /// `clusterIP: None`.
    #[error(
        "the Service is headless (clusterIP: None), so it has no address of its own that the edge could send to; make it \
         a ClusterIP, NodePort or LoadBalancer Service"
    )]
    Headless,
    /// `type: ExternalName`.
    #[error(
        "the Service is of type ExternalName, which is only a DNS alias; only ClusterIP, NodePort and LoadBalancer \
         Services can be exposed"
    )]
    ExternalName,
    /// The API server has not given it an address.
    #[error("the Service has no ClusterIP yet")]
    NoClusterIp,
    /// What would be sent breaks a rule of the records.
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn join(errors: &[AnnotationError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Namespace and name of a Service.
#[must_use]
pub fn id_of(service: &Service) -> ServiceId {
    ServiceId {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
    }
}

/// What the edge is to be told about `service`; `None` if it has no annotations of ours or is being deleted.
///
/// # Errors
///
/// Why an annotated Service can't be exposed. It is then left out as a whole: half of a game server helps nobody.
pub fn discover(
    service: &Service,
    node_addresses: &[IpAddr],
    keys: &AnnotationKeys,
) -> Result<Option<ServiceRecord>, DiscoverError> {
    // With finalizers (a load balancer's, say) a deleted Service lingers; its owner has said that it shall go.
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let Some(annotations) = &service.metadata.annotations else {
        return Ok(None);
    };
    let Some(request) = keys.read(annotations).map_err(DiscoverError::Annotations)? else {
        return Ok(None);
    };
    let spec = service.spec.as_ref().ok_or(DiscoverError::NoClusterIp)?;
    let cluster_ip = cluster_ip(spec)?;
    let offered: Vec<ServicePortInfo> = spec.ports.iter().flatten().filter_map(offered_port).collect();
    let ports = resolve(&request.ports, &offered).map_err(|source| DiscoverError::Ports {
        key: keys.key(exposer_common::k8s::annotations::PORTS),
        source: Box::new(source),
    })?;
    let Request {
        subdomain,
        ports: _,
        target,
        client_ip,
        idle_timeout,
    } = request;
    let record = ServiceRecord {
        id: id_of(service),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        created: created(service),
        subdomain,
        ports,
        cluster_ip: Some(cluster_ip),
        node_addresses: node_addresses.to_vec(),
        target,
        client_ip,
        idle_timeout,
    };
    record.validate()?;
    Ok(Some(record))
}

/// The address of the Service; of a dual-stack Service the IPv4 one, which the kernel path carries.
fn cluster_ip(spec: &ServiceSpec) -> Result<IpAddr, DiscoverError> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(DiscoverError::ExternalName);
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Err(DiscoverError::Headless);
    }
    spec.cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .min_by_key(IpAddr::is_ipv6)
        .ok_or(DiscoverError::NoClusterIp)
}

/// A port of the Service, if it is TCP or UDP; SCTP can't be carried.
fn offered_port(port: &ServicePort) -> Option<ServicePortInfo> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let number = |value: i32| u16::try_from(value).ok().filter(|port| *port != 0);
    Some(ServicePortInfo {
        name: port.name.clone(),
        port: number(port.port)?,
        protocol,
        target_port: match &port.target_port {
            Some(IntOrString::Int(value)) => number(*value),
            // Kubernetes' own default: the same number.
            None => number(port.port),
            Some(IntOrString::String(_)) => None,
        },
        node_port: port.node_port.and_then(number),
    })
}

/// `creationTimestamp` in seconds since 1970.
fn created(service: &Service) -> u64 {
    service
        .metadata
        .creation_timestamp
        .as_ref()
        .and_then(|time| u64::try_from(time.0.as_second()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
