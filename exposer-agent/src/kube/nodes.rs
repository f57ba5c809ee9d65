//! The addresses of nodes that can take traffic for a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use exposer_common::model::{MAX_NODE_ADDRESSES, is_target_address};
use k8s_openapi::api::core::v1::{Node, NodeStatus};

/// The InternalIPs of a node, if it is ready and not on its way out. These, not the address in the tunnel, are where
/// kube-proxy accepts NodePorts by default (DESIGN §5).
#[must_use]
pub fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    let Some(status) = &node.status else {
        return Vec::new();
    };
    if node.metadata.deletion_timestamp.is_some() || !is_ready(status) {
        return Vec::new();
    }
    status
        .addresses
        .iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .filter(|address| is_target_address(*address))
        .collect()
}

fn is_ready(status: &NodeStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The addresses as a record carries them: each once, in a stable order with IPv4 first, and not too many.
#[must_use]
pub fn in_order<'a>(nodes: impl Iterator<Item = &'a Vec<IpAddr>>) -> Vec<IpAddr> {
    // IpAddr orders every IPv4 address before every IPv6 address.
    let distinct: BTreeSet<IpAddr> = nodes.flatten().copied().collect();
    distinct.into_iter().take(MAX_NODE_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses},
        }))
        .unwrap()
    }

    #[test]
    fn only_internal_addresses_of_ready_nodes_count() {
        let all = [
            ("Hostname", "home"),
            ("ExternalIP", "203.0.113.9"),
            ("InternalIP", "192.168.1.10"),
            ("InternalIP", "fd00::10"),
            ("InternalIP", "127.0.0.1"),
            ("InternalIP", "nonsense"),
        ];
        let expected: Vec<IpAddr> = vec!["192.168.1.10".parse().unwrap(), "fd00::10".parse().unwrap()];
        assert_eq!(internal_addresses(&node("True", &all)), expected);
        assert!(internal_addresses(&node("False", &all)).is_empty());
        assert!(internal_addresses(&node("Unknown", &all)).is_empty());
        assert!(internal_addresses(&Node::default()).is_empty());
    }

    #[test]
    fn the_order_does_not_depend_on_that_of_the_nodes() {
        let one: Vec<IpAddr> = vec!["fd00::1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let two: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let order = in_order([&one, &two].into_iter());
        assert_eq!(order, in_order([&two, &one].into_iter()));
        let texts: Vec<String> = order.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    }
}
