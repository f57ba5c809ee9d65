//! What the daemon tells of itself: the value behind `GET /v1/status`, `exposer-edge status` and the metrics.
//!
//! The wiring fills it about once a second and publishes it on a `tokio::sync::watch` channel of `Arc<Status>`. The
//! JSON form is an interface for scripts: fields are added, never renamed or removed.

use std::net::SocketAddr;

use exposer_common::model::Protocol;
use exposer_common::proto::message::{Path, Refusal};
use exposer_common::verdict::{Reason, Verdict};
use serde::{Deserialize, Serialize};

use crate::datapath::{BindingStats, ServiceRef};
use crate::net::environment::Environment;

/// The daemon's state at one moment. The default is that of one that has only begun to start: not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the software.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// When the daemon started, seconds since 1970.
    pub started: u64,
    /// What keeps the daemon from doing its job, one sentence each; empty = ready.
    pub not_ready: Vec<String>,
    /// Agents that have connected, or whose Services are still served.
    pub agents: Vec<AgentStatus>,
    /// Services, in the order of agent, namespace and name.
    pub services: Vec<ServiceStatus>,
    /// Interfaces and addresses.
    pub environment: Environment,
    /// What carries packets.
    pub datapath: DatapathStatus,
    /// Counters of verdict reasons that are not zero, kernel and userspace together.
    pub reasons: Vec<ReasonCount>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: 0,
            not_ready: vec!["the daemon is starting".to_owned()],
            agents: Vec::new(),
            services: Vec::new(),
            environment: Environment::default(),
            datapath: DatapathStatus::default(),
            reasons: Vec::new(),
        }
    }
}

impl Status {
    /// Whether the daemon does its job.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.not_ready.is_empty()
    }
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// Where it connects from; none while it is away.
    pub peer: Option<SocketAddr>,
    /// When it connected, or when it went away; seconds since 1970.
    pub since: u64,
    /// When its Services end if it stays away, seconds since 1970.
    pub expires: Option<u64>,
    /// Its software and version, as it says.
    pub software: String,
    /// Revision of its last message that was acted on.
    pub revision: u64,
    /// Number of its Services.
    pub services: u32,
}

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Whose it is, and its name.
    pub service: ServiceRef,
    /// Its name under the cluster domain.
    pub subdomain: String,
    /// Why the Service as a whole is refused; its ports are then empty.
    pub refused: Option<Refusal>,
    /// Its public ports.
    pub ports: Vec<PortStatus>,
}

/// One public port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port that was asked for.
    pub requested: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port that answers, where one does.
    pub public_port: Option<u16>,
    /// Number of the binding in the kernel maps: what `exposer-edge flows` and `bpftool` show as the service.
    pub index: Option<u32>,
    /// Which path serves it.
    pub path: Option<Path>,
    /// Where its packets go.
    pub backend: Option<SocketAddr>,
    /// Why it is not what was asked for, or nothing at all.
    pub refused: Option<Refusal>,
    /// What went through.
    pub stats: BindingStats,
}

/// What carries packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// The setting: `auto`, `kernel` or `userspace`.
    pub configured: String,
    /// The best path that is working.
    pub path: Option<Path>,
    /// How the programs are attached, one entry for each interface; empty without the kernel path.
    pub attachments: Vec<Attachment>,
    /// Why the kernel path is off although the setting allows it.
    pub why_userspace: Option<String>,
    /// Entries of the flow table.
    pub flows: u64,
    /// Room in the flow table.
    pub flow_slots: u64,
}

/// One attached program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// The program.
    pub program: String,
    /// Rung of the attach ladder: `tcx`, `clsact`, or `none` while the interface is gone.
    pub rung: String,
    /// Why no higher rung was taken, where there is one.
    pub note: Option<String>,
}

/// Counter of one verdict reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Its stable name.
    pub reason: String,
    /// `pass`, `redirect` or `drop`.
    pub verdict: String,
    /// Packets, or connections on the userspace path.
    pub count: u64,
    /// One sentence for the operator.
    pub text: String,
}

impl ReasonCount {
    /// The counter of `reason`.
    #[must_use]
    pub fn new(reason: Reason, count: u64) -> Self {
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Redirect => "redirect",
            Verdict::Drop => "drop",
        };
        Self {
            reason: reason.as_str().to_owned(),
            verdict: verdict.to_owned(),
            count,
            text: reason.describe().to_owned(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use exposer_common::model::ServiceId;
    use exposer_common::proto::message::RefusalCode;

    use super::*;

    /// A status with something in every place.
    pub(crate) fn example() -> Status {
        let service = |namespace: &str, name: &str| ServiceRef {
            agent: "default".into(),
            id: ServiceId {
                namespace: namespace.into(),
                name: name.into(),
            },
        };
        let port = PortStatus {
            requested: 25_565,
            protocol: Protocol::Tcp,
            public_port: Some(25_565),
            index: Some(3),
            path: Some(Path::Kernel),
            backend: Some("10.96.0.10:25565".parse().unwrap()),
            refused: None,
            stats: BindingStats {
                flows: 12,
                active: 2,
                bytes_in: 1_234_567,
                ..BindingStats::default()
            },
        };
        let taken = Refusal {
            code: RefusalCode::SubdomainTaken,
            text: "the subdomain is taken".into(),
        };
        Status {
            version: "0.1.0".into(),
            pid: 4242,
            started: 1_790_000_000,
            not_ready: vec!["the tunnel interface wg0 is down; start it: wg-quick up wg0".into()],
            agents: vec![AgentStatus {
                name: "default".into(),
                peer: Some("10.0.0.2:40000".parse().unwrap()),
                since: 1_790_000_100,
                expires: None,
                software: "exposer-agent 0.1.0".into(),
                revision: 7,
                services: 2,
            }],
            services: vec![
                ServiceStatus {
                    service: service("games", "minecraft"),
                    subdomain: "mc".into(),
                    refused: None,
                    ports: vec![port],
                },
                ServiceStatus {
                    service: service("web", "late"),
                    subdomain: "mc".into(),
                    refused: Some(taken),
                    ports: vec![],
                },
            ],
            datapath: DatapathStatus {
                configured: "auto".into(),
                path: Some(Path::Kernel),
                attachments: vec![Attachment {
                    interface: "eth0".into(),
                    program: "wan_ingress".into(),
                    rung: "clsact".into(),
                    note: Some("TCX needs Linux 6.6".into()),
                }],
                why_userspace: None,
                flows: 2,
                flow_slots: 393_216,
            },
            environment: Environment::default(),
            reasons: vec![ReasonCount::new(Reason::ForwardHit, 900)],
        }
    }

    #[test]
    fn json_goes_there_and_back() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), example());
        assert!(text.contains("\"path\":\"kernel\""), "{text}");
    }
}
