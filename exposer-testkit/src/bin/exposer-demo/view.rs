//! What `exposer-edge status --output json` and `exposer-edge flows --output json` print, as far as the demo reads it.
//!
//! These are the demo's own types on purpose: the JSON is an interface for scripts, and the demo is such a script.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// The daemon's state.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// What keeps it from its job.
    pub not_ready: Vec<String>,
    /// Agents, present or away.
    pub agents: Vec<Agent>,
    /// Services of all agents.
    pub services: Vec<Service>,
    /// What carries packets.
    pub datapath: Datapath,
}

/// One agent.
#[derive(Clone, Debug, Deserialize)]
pub struct Agent {
    /// Where it connects from; none while it is away.
    pub peer: Option<String>,
}

/// One Service.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Agent, namespace, name.
    pub service: ServiceRef,
    /// Why the whole Service is refused.
    pub refused: Option<Refusal>,
    /// Its public ports.
    pub ports: Vec<Port>,
}

/// Agent, namespace, name.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceRef {
    /// Namespace and name.
    pub id: Id,
}

/// Namespace and name.
#[derive(Clone, Debug, Deserialize)]
pub struct Id {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

/// One public port.
#[derive(Clone, Debug, Deserialize)]
pub struct Port {
    /// The port that was asked for.
    pub requested: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port that answers.
    pub public_port: Option<u16>,
    /// `kernel` or `userspace`.
    pub path: Option<String>,
    /// Why it is not as asked for.
    pub refused: Option<Refusal>,
    /// What went through.
    pub stats: Stats,
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Stats {
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// A reason for a person.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    /// What happened and what to do.
    pub text: String,
}

/// What carries packets.
#[derive(Clone, Debug, Deserialize)]
pub struct Datapath {
    /// The best path that is working.
    pub path: Option<String>,
    /// Why not the kernel path.
    pub why_userspace: Option<String>,
    /// The programs.
    pub attachments: Vec<Attachment>,
}

/// One attached program.
#[derive(Clone, Debug, Deserialize)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// `tcx`, `clsact` or `none`.
    pub rung: String,
}

impl Status {
    /// Reads the JSON.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("`exposer-edge status` printed no status: {text}"))
    }

    /// The Service `namespace/name`, if the edge knows it.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.iter().find(|entry| {
            let Id {
                namespace: theirs,
                name: called,
            } = &entry.service.id;
            theirs == namespace && called == name
        })
    }
}

/// What the flow table holds for one public port, both directions summed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Entries.
    pub flows: u64,
    /// Packets toward home.
    pub packets_in: u64,
    /// Bytes toward home.
    pub bytes_in: u64,
    /// Packets toward the client.
    pub packets_out: u64,
    /// Bytes toward the client.
    pub bytes_out: u64,
}

impl Counted {
    /// Reads the JSON of `exposer-edge flows`: a list of flows, bare or under `flows`.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .with_context(|| format!("`exposer-edge flows` printed no JSON: {text}"))?;
        let list = value
            .as_array()
            .or_else(|| value.get("flows").and_then(Value::as_array));
        let list = list.with_context(|| format!("`exposer-edge flows` printed no list of flows: {text}"))?;
        let mut sum = Self::default();
        for flow in list {
            let number = |field: &str| {
                flow.get(field)
                    .and_then(Value::as_u64)
                    .with_context(|| format!("a flow has no number \"{field}\": {flow}"))
            };
            sum.flows = sum.flows.saturating_add(1);
            sum.packets_in = sum.packets_in.saturating_add(number("packets_in")?);
            sum.bytes_in = sum.bytes_in.saturating_add(number("bytes_in")?);
            sum.packets_out = sum.packets_out.saturating_add(number("packets_out")?);
            sum.bytes_out = sum.bytes_out.saturating_add(number("bytes_out")?);
        }
        Ok(sum)
    }
}
