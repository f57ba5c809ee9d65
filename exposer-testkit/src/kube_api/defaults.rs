//! What an API server fills into an object that a client leaves open: identity, ClusterIPs, node ports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::resource::Resource;
use super::status::Refused;

/// First address of the range for ClusterIPs, 10.96.0.0/16, as kubeadm chooses it.
const CLUSTER_IPS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// Node ports, as every Kubernetes has them by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Hands out uids, ClusterIPs and node ports; none of them twice, unless a manifest asks for one itself.
#[derive(Debug)]
pub struct Allocator {
    cluster_ips: u16,
    node_ports: BTreeSet<u16>,
    uids: u64,
}

impl Default for Allocator {
    fn default() -> Self {
        // 10.96.0.1 and .10 are the API server and the DNS of a real cluster.
        Self {
            cluster_ips: 100,
            node_ports: BTreeSet::new(),
            uids: 0,
        }
    }
}

/// The current time as `metadata.creationTimestamp` has it.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl Allocator {
    /// Completes `object`, which `before` is replaced by; what `before` was given stays with it.
    ///
    /// # Errors
    ///
    /// 422 where the object has no name or no `spec` of the right shape.
    pub fn complete(
        &mut self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &mut Value,
        before: Option<&Value>,
    ) -> Result<(), Refused> {
        let map = object
            .as_object_mut()
            .ok_or_else(|| Refused::invalid("the object is not a JSON object"))?;
        map.insert("apiVersion".to_owned(), json!(resource.api_version()));
        map.insert("kind".to_owned(), json!(resource.kind));
        self.complete_metadata(resource, namespace, map, before)?;
        if resource.kind == "Service" {
            self.complete_service(map, before)?;
        }
        Ok(())
    }

    fn complete_metadata(
        &mut self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &mut Map<String, Value>,
        before: Option<&Value>,
    ) -> Result<(), Refused> {
        let metadata = child(object, "metadata")?;
        self.uids = self.uids.saturating_add(1);
        if let (None, Some(prefix)) = (
            metadata.get("name"),
            metadata.get("generateName").and_then(Value::as_str),
        ) {
            let name = format!("{prefix}{:05x}", self.uids);
            metadata.insert("name".to_owned(), json!(name));
        }
        if metadata
            .get("name")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(Refused::invalid(
                "metadata.name: Required value: name is required",
            ));
        }
        if resource.namespaced {
            let namespace = namespace.unwrap_or("default");
            metadata.entry("namespace").or_insert_with(|| json!(namespace));
        }
        for (field, fresh) in [
            (
                "uid",
                json!(format!("00000000-0000-4000-8000-{:012x}", self.uids)),
            ),
            ("creationTimestamp", json!(now())),
        ] {
            let kept = before.and_then(|before| before.pointer(&format!("/metadata/{field}")));
            match kept {
                Some(kept) => metadata.insert(field.to_owned(), kept.clone()),
                None if metadata.get(field).is_none_or(Value::is_null) => {
                    metadata.insert(field.to_owned(), fresh)
                }
                None => None,
            };
        }
        Ok(())
    }

    fn complete_service(
        &mut self,
        object: &mut Map<String, Value>,
        before: Option<&Value>,
    ) -> Result<(), Refused> {
        let spec = child(object, "spec")?;
        let kind = spec
            .entry("type")
            .or_insert_with(|| json!("ClusterIP"))
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        if spec.get("clusterIP").is_none_or(Value::is_null) {
            let kept = before.and_then(|before| before.pointer("/spec/clusterIP"));
            let address = kept.cloned().unwrap_or_else(|| json!(self.cluster_ip()));
            spec.insert("clusterIP".to_owned(), address);
        }
        let addresses = vec![spec.get("clusterIP").cloned().unwrap_or(Value::Null)];
        spec.entry("clusterIPs").or_insert(Value::Array(addresses));
        spec.entry("sessionAffinity").or_insert_with(|| json!("None"));
        let wants_node_ports = kind == "NodePort" || kind == "LoadBalancer";
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        for port in ports {
            let port = port
                .as_object_mut()
                .ok_or_else(|| Refused::invalid("spec.ports: each port is an object"))?;
            self.complete_port(port, wants_node_ports, before)?;
        }
        Ok(())
    }

    fn complete_port(
        &mut self,
        port: &mut Map<String, Value>,
        wants_node_port: bool,
        before: Option<&Value>,
    ) -> Result<(), Refused> {
        let number = port
            .get("port")
            .and_then(Value::as_u64)
            .filter(|port| (1..=65535).contains(port))
            .ok_or_else(|| Refused::invalid("spec.ports[].port: must be between 1 and 65535"))?;
        let protocol = port.entry("protocol").or_insert_with(|| json!("TCP")).clone();
        port.entry("targetPort").or_insert_with(|| json!(number));
        if !wants_node_port {
            return Ok(());
        }
        let asked = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        if asked != 0 {
            self.node_ports.extend(u16::try_from(asked));
            return Ok(());
        }
        let kept = before
            .and_then(|before| before.pointer("/spec/ports"))
            .and_then(Value::as_array)
            .and_then(|ports| {
                ports.iter().find(|old| {
                    old.get("port") == Some(&json!(number)) && old.get("protocol") == Some(&protocol)
                })
            })
            .and_then(|old| old.get("nodePort"))
            .cloned();
        let chosen = match kept {
            Some(kept) => kept,
            None => json!(self.node_port()?),
        };
        port.insert("nodePort".to_owned(), chosen);
        Ok(())
    }

    fn cluster_ip(&mut self) -> String {
        self.cluster_ips = self.cluster_ips.checked_add(1).unwrap_or(100);
        Ipv4Addr::from_bits(CLUSTER_IPS.to_bits() | u32::from(self.cluster_ips)).to_string()
    }

    fn node_port(&mut self) -> Result<u16, Refused> {
        let free = NODE_PORTS
            .into_iter()
            .find(|port| !self.node_ports.contains(port))
            .ok_or_else(|| Refused::invalid("no node port is free"))?;
        self.node_ports.insert(free);
        Ok(free)
    }
}

/// The object under `key`, made where it is missing.
fn child<'a>(object: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>, Refused> {
    object
        .entry(key)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Refused::invalid(format!("{key} is not an object")))
}
