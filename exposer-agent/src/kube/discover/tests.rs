//! Services of every type, and of every kind of mistake.

use super::*;
use exposer_common::model::{ClientIp, TargetKind};
use serde_json::{Value, json};

const SUBDOMAIN: &str = "expose.neverup.at/subdomain";
const PORTS: &str = "expose.neverup.at/ports";

/// A Service with these annotations, and whatever `spec` says beyond type ClusterIP and address 10.96.0.7.
fn service(annotations: impl Into<Value>, spec: impl Into<Value>) -> Service {
    let mut whole = json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]});
    let (annotations, spec): (Value, Value) = (annotations.into(), spec.into());
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": "mc", "namespace": "games", "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": annotations,
        },
        "spec": whole,
    }))
    .unwrap()
}

fn look(service: &Service) -> Result<Option<ServiceRecord>, DiscoverError> {
    discover(
        service,
        &["192.168.1.10".parse().unwrap()],
        &AnnotationKeys::default(),
    )
}

fn minecraft_ports() -> Value {
    json!({"ports": [
        {"name": "game", "port": 25565, "targetPort": 25565},
        {"name": "query", "port": 25565, "protocol": "UDP", "targetPort": "query"},
    ]})
}

#[test]
fn a_service_is_reported_with_all_four_numbers_apart() {
    let service = service(
        json!({SUBDOMAIN: "mc", PORTS: "8443:https/tcp"}),
        json!({"type": "NodePort", "ports": [
            {"name": "https", "port": 443, "targetPort": 9443, "nodePort": 31443, "protocol": "TCP"}
        ]}),
    );
    let record = look(&service).unwrap().unwrap();
    assert_eq!(record.id.to_string(), "games/mc");
    assert_eq!((record.uid.as_str(), record.created), ("u-1", 1_767_323_045));
    assert_eq!(record.cluster_ip, Some("10.96.0.7".parse().unwrap()));
    assert_eq!(record.node_addresses, ["192.168.1.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        (record.target, record.client_ip),
        (TargetKind::Auto, ClientIp::Auto)
    );
    let port = record.ports.first().unwrap();
    let side = port.tcp.unwrap();
    assert_eq!((port.public_port, side.service_port), (8443, 443));
    assert_eq!((side.target_port, side.node_port), (Some(9443), Some(31443)));
    assert!(port.udp.is_none());
}

#[test]
fn both_protocols_of_one_number_are_one_port() {
    let service = service(
        json!({SUBDOMAIN: "mc", PORTS: "25565/tcp+udp"}),
        minecraft_ports(),
    );
    let record = look(&service).unwrap().unwrap();
    let port = record.ports.first().unwrap();
    assert_eq!(record.ports.len(), 1);
    assert_eq!(port.tcp.unwrap().target_port, Some(25565));
    assert_eq!(
        port.udp.unwrap().target_port,
        None,
        "a named targetPort differs from pod to pod"
    );
}

#[test]
fn load_balancers_and_services_with_two_addresses_work() {
    let mut spec = minecraft_ports();
    spec["type"] = json!("LoadBalancer");
    spec["clusterIP"] = json!("fd00::7");
    spec["clusterIPs"] = json!(["fd00::7", "10.96.0.8"]);
    let record = look(&service(json!({SUBDOMAIN: "mc", PORTS: "25565/tcp"}), spec)).unwrap();
    assert_eq!(record.unwrap().cluster_ip, Some("10.96.0.8".parse().unwrap()));
}

#[test]
fn services_without_our_annotations_are_nobodys_business() {
    for annotations in [json!({}), json!({"other/ports": "80/tcp"}), json!(null)] {
        assert_eq!(look(&service(annotations, minecraft_ports())), Ok(None));
    }
    assert_eq!(look(&Service::default()), Ok(None));
}

#[test]
fn a_service_that_is_being_deleted_is_gone() {
    let mut service = service(json!({SUBDOMAIN: "mc", PORTS: "25565/tcp"}), minecraft_ports());
    service.metadata.deletion_timestamp = service.metadata.creation_timestamp.clone();
    assert_eq!(look(&service), Ok(None));
}

#[test]
fn another_prefix_is_another_interface() {
    let service = service(json!({SUBDOMAIN: "mc", PORTS: "25565/tcp"}), minecraft_ports());
    let keys = AnnotationKeys::new("exposer.example.org").unwrap();
    assert_eq!(discover(&service, &[], &keys), Ok(None));
}

/// Annotations, spec, and what the message must quote.
#[test]
fn every_mistake_is_told_with_the_offending_text() {
    let ok = json!({SUBDOMAIN: "mc", PORTS: "25565/tcp"});
    let with = |key: &str, value: &str| {
        let mut annotations = ok.clone();
        annotations[key] = json!(value);
        annotations
    };
    let ports = minecraft_ports;
    let cases: Vec<(Value, Value, Vec<&str>)> = vec![
        (json!({SUBDOMAIN: "mc"}), ports(), vec![PORTS, "missing"]),
        (json!({PORTS: "25565/tcp"}), ports(), vec![SUBDOMAIN, "missing"]),
        (with(PORTS, "25565"), ports(), vec![PORTS, "25565"]),
        (with(PORTS, "25565/tpc"), ports(), vec!["tpc", "tcp"]),
        (with(PORTS, "70000/tcp"), ports(), vec!["70000"]),
        (with(PORTS, "25565/tcp,,"), ports(), vec![PORTS]),
        (with(PORTS, ""), ports(), vec![PORTS]),
        (
            with(SUBDOMAIN, "My_Server"),
            ports(),
            vec![SUBDOMAIN, "My_Server"],
        ),
        (
            with("expose.neverup.at/target", "moon"),
            ports(),
            vec!["moon", "cluster-ip"],
        ),
        (
            with("expose.neverup.at/idle-timeout", "soon"),
            ports(),
            vec!["soon"],
        ),
        (
            with(PORTS, "80/tcp"),
            ports(),
            vec![PORTS, "80", "25565/tcp (game)"],
        ),
        (with(PORTS, "80:web/tcp"), ports(), vec!["web"]),
        (
            with(PORTS, "25565/udp"),
            json!({"ports": [{"port": 25565, "protocol": "TCP"}]}),
            vec!["25565", "udp", "only tcp"],
        ),
        (
            with(PORTS, "25565/tcp"),
            json!({"ports": [{"port": 25565, "protocol": "SCTP"}]}),
            vec!["neither TCP nor UDP"],
        ),
        (
            ok.clone(),
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            vec!["headless"],
        ),
        (
            ok.clone(),
            json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": null, "clusterIPs": null}),
            vec!["ExternalName"],
        ),
        (
            ok.clone(),
            json!({"clusterIP": "", "clusterIPs": []}),
            vec!["no ClusterIP"],
        ),
        (
            ok,
            json!({"clusterIP": "127.0.0.1", "clusterIPs": ["127.0.0.1"], "ports": ports()["ports"]}),
            vec!["127.0.0.1"],
        ),
    ];
    for (annotations, spec, quoted) in cases {
        let case = format!("{annotations} {spec}");
        let text = look(&service(annotations, spec)).expect_err(&case).to_string();
        for quote in quoted {
            assert!(text.contains(quote), "{case}\n  says: {text}\n  without: {quote}");
        }
    }
}

#[test]
fn all_mistakes_of_the_annotations_are_told_at_once() {
    let service = service(json!({SUBDOMAIN: "-", PORTS: "x/tcp"}), minecraft_ports());
    let text = look(&service).unwrap_err().to_string();
    assert!(text.contains(SUBDOMAIN) && text.contains(PORTS), "{text}");
}
