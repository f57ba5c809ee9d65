//! The status in the Prometheus text format.

use std::fmt::Write as _;

use crate::datapath::ServiceRef;
use crate::status::{PortStatus, ServiceStatus, Status};

/// One metric: what it is, and how it is taken from a port.
struct PortMetric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&PortStatus) -> u64,
}

const PORT_METRICS: &[PortMetric] = &[
    PortMetric {
        name: "exposer_port_connections_total",
        kind: "counter",
        help: "Connections or sessions made.",
        value: |port| port.stats.flows,
    },
    PortMetric {
        name: "exposer_port_connections_active",
        kind: "gauge",
        help: "Connections or sessions that live.",
        value: |port| port.stats.active,
    },
    PortMetric {
        name: "exposer_port_failures_total",
        kind: "counter",
        help: "Connections that failed: refused, timed out, over a limit.",
        value: |port| port.stats.failed,
    },
    PortMetric {
        name: "exposer_port_received_bytes_total",
        kind: "counter",
        help: "Bytes from clients toward home.",
        value: |port| port.stats.bytes_in,
    },
    PortMetric {
        name: "exposer_port_sent_bytes_total",
        kind: "counter",
        help: "Bytes from home toward clients.",
        value: |port| port.stats.bytes_out,
    },
];

/// Every metric, in the Prometheus text format.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    let version = [("version", status.version.as_str())];
    one(
        &mut text,
        "exposer_edge_info",
        "gauge",
        "Version of the software.",
        &version,
        1,
    );
    let ready = u64::from(status.is_ready());
    one(
        &mut text,
        "exposer_edge_ready",
        "gauge",
        "Whether the daemon does its job.",
        &[],
        ready,
    );
    let tunnel = u64::from(status.environment.tunnel.ifindex.is_some());
    one(
        &mut text,
        "exposer_tunnel_up",
        "gauge",
        "Whether the tunnel interface is up.",
        &[],
        tunnel,
    );
    let flows = status.datapath.flows;
    one(
        &mut text,
        "exposer_flow_table_entries",
        "gauge",
        "Entries of the flow table.",
        &[],
        flows,
    );
    let slots = status.datapath.flow_slots;
    one(
        &mut text,
        "exposer_flow_table_slots",
        "gauge",
        "Room in the flow table.",
        &[],
        slots,
    );
    agents(&mut text, status);
    ports(&mut text, status);
    head(
        &mut text,
        "exposer_verdicts_total",
        "counter",
        "Packets, or userspace connections, by reason.",
    );
    for reason in &status.reasons {
        let labels = [
            ("reason", reason.reason.as_str()),
            ("verdict", reason.verdict.as_str()),
        ];
        sample(&mut text, "exposer_verdicts_total", &labels, reason.count);
    }
    text
}

fn agents(text: &mut String, status: &Status) {
    head(
        text,
        "exposer_agent_connected",
        "gauge",
        "Whether the agent is connected.",
    );
    for agent in &status.agents {
        let connected = u64::from(agent.peer.is_some());
        sample(
            text,
            "exposer_agent_connected",
            &[("agent", &agent.name)],
            connected,
        );
    }
    head(text, "exposer_agent_services", "gauge", "Services of the agent.");
    for agent in &status.agents {
        sample(
            text,
            "exposer_agent_services",
            &[("agent", &agent.name)],
            agent.services.into(),
        );
    }
}

fn ports(text: &mut String, status: &Status) {
    for metric in PORT_METRICS {
        head(text, metric.name, metric.kind, metric.help);
        for ServiceStatus { service, ports, .. } in &status.services {
            let ServiceRef { agent, id } = service;
            for port in ports {
                let Some(number) = port.public_port else { continue };
                let number = number.to_string();
                let labels = [
                    ("agent", agent.as_str()),
                    ("namespace", id.namespace.as_str()),
                    ("service", id.name.as_str()),
                    ("port", number.as_str()),
                    ("protocol", port.protocol.as_str()),
                ];
                sample(text, metric.name, &labels, (metric.value)(port));
            }
        }
    }
}

fn one(text: &mut String, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: u64) {
    head(text, name, kind, help);
    sample(text, name, labels, value);
}

// Writing to a String can't fail; the results are let go.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
        .collect();
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    };
    let _ = writeln!(text, "{name}{labels} {value}");
}

/// A label's value, with what the format reserves escaped.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn every_sample_has_its_head_and_a_number() {
        let text = render(&example());
        let mut kinds = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert!(kinds.insert(kind.split(' ').next().unwrap()), "{line} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                value.parse::<u64>().unwrap();
                assert!(
                    kinds.contains(series.split('{').next().unwrap()),
                    "{line} without TYPE"
                );
            }
        }
        for expected in [
            "exposer_edge_ready 0",
            "exposer_agent_connected{agent=\"default\"} 1",
            "exposer_port_connections_total{agent=\"default\",namespace=\"games\",service=\"minecraft\",port=\"25565\",protocol=\"tcp\"} 12",
            "exposer_verdicts_total{reason=\"FORWARD_HIT\",verdict=\"redirect\"} 900",
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected} is not in\n{text}"
            );
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
