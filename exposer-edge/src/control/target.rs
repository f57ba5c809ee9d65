//! Where the packets of a Service go: the choice among the addresses that the record offers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use exposer_common::model::{ServicePort, ServiceRecord, TargetKind};
use exposer_common::proto::message::{Refusal, RefusalCode};

/// Chooses the backend of one side of a port.
///
/// `own` are the addresses of the edge itself: a Service that points there would publish what listens on the host's
/// private addresses.
///
/// # Errors
///
/// The refusal for the agent, with a text that names what is missing.
pub fn choose(
    record: &ServiceRecord,
    side: ServicePort,
    own: &BTreeSet<IpAddr>,
) -> Result<SocketAddr, Refusal> {
    let ServicePort {
        service_port,
        target_port: _,
        node_port,
    } = side;
    let cluster = record
        .cluster_ip
        .map(|address| SocketAddr::new(address, service_port));
    let node = record
        .node_addresses
        .first()
        .zip(node_port)
        .map(|(address, port)| SocketAddr::new(*address, port));
    let chosen = match record.target {
        TargetKind::Auto => cluster.or(node).ok_or_else(|| {
            format!(
                "port {service_port} has neither a ClusterIP nor a node port that the edge could send to; a headless \
                 Service needs type NodePort"
            )
        }),
        TargetKind::ClusterIp => cluster
            .ok_or_else(|| "target cluster-ip was chosen, but the Service is headless and has no ClusterIP".into()),
        TargetKind::NodePort => node.ok_or_else(|| node_text(record, service_port)),
        TargetKind::PodIp => Err(
            "target pod-ip is not offered by this version of the edge; use auto, cluster-ip or node-port".to_owned(),
        ),
    };
    let refuse = |text| Refusal {
        code: RefusalCode::NoTarget,
        text,
    };
    let backend = chosen.map_err(refuse)?;
    if own.contains(&backend.ip()) {
        return Err(refuse(format!(
            "the target {backend} is an address of the edge itself, not of the cluster"
        )));
    }
    Ok(backend)
}

fn node_text(record: &ServiceRecord, service_port: u16) -> String {
    if record.node_addresses.is_empty() {
        "target node-port was chosen, but no ready node with an InternalIP is known; does the agent have the role that \
         lets it read nodes?"
            .into()
    } else {
        format!(
            "target node-port was chosen, but port {service_port} has no node port; set the Service's type to NodePort \
             or choose target cluster-ip"
        )
    }
}
