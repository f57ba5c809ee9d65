//! Which path serves a public port, why not a better one, and what is wrong with it. A function of values.

use std::net::IpAddr;

use exposer_common::proto::message::{Path, RefusalCode};
use exposer_common::service::{PortMode, ServiceEntry};
use serde::Serialize;

use super::Problem;
use super::packet::Journey;
use crate::datapath::BindingKey;
use crate::net::firewall::Blocker;
use crate::status::PortStatus;

/// What is known of one port.
#[derive(Clone, Debug)]
pub(super) struct PortFacts {
    pub key: BindingKey,
    /// What the daemon says of it, and of whose it is.
    pub told: Option<(String, PortStatus)>,
    /// Whether the daemon answers.
    pub daemon: bool,
    /// Its cell in `PORTS`; none without maps.
    pub mode: Option<PortMode>,
    /// Its entry in `SERVICES`, and the public address of it.
    pub service: Option<(IpAddr, ServiceEntry)>,
    /// Whether the heartbeat in the maps is fresh.
    pub fresh: bool,
    /// The setting of the daemon: `auto`, `kernel` or `userspace`.
    pub configured: String,
    /// Why the kernel path as a whole is off.
    pub why_userspace: Option<String>,
    pub blocked: Option<Blocker>,
    pub redirected: Option<String>,
    /// Who listens, and whether that is the daemon.
    pub listener: Option<(String, bool)>,
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PortAnswer {
    pub port: BindingKey,
    /// `AGENT:NAMESPACE/NAME`, where the daemon tells.
    pub service: Option<String>,
    pub backend: Option<String>,
    /// `kernel`, `userspace`, or `none`.
    pub path: &'static str,
    /// Why this path and no better one.
    pub why: String,
    /// What a client's packet would meet.
    pub packet: Option<Journey>,
    pub problems: Vec<Problem>,
}

/// Judges one port; the way of a packet is added by the caller.
pub(super) fn judge(facts: &PortFacts) -> PortAnswer {
    let mut problems = Vec::new();
    let (path, why) = path(facts, &mut problems);
    if path != "none" {
        in_the_way(facts, &mut problems);
    }
    let told = facts.told.as_ref();
    let entry = facts.service.map(|(_, entry)| {
        let backend = std::net::Ipv4Addr::from(entry.backend);
        format!("{backend}:{}", entry.backend_port)
    });
    PortAnswer {
        port: facts.key,
        service: told.map(|(name, _)| name.clone()),
        backend: told
            .and_then(|(_, port)| port.backend.map(|backend| backend.to_string()))
            .or(entry),
        path,
        why,
        packet: None,
        problems,
    }
}

fn path(facts: &PortFacts, problems: &mut Vec<Problem>) -> (&'static str, String) {
    let Some((_, port)) = &facts.told else {
        return untold(facts, problems);
    };
    if let Some(refused) = &port.refused
        && refused.code != RefusalCode::PathDowngraded
    {
        problems.push(Problem::new(
            refused.text.clone(),
            "kubectl describe the Service: its Events say the same; the text says what to change",
        ));
    }
    let Some(public) = port.public_port else {
        if port.refused.is_some() {
            return ("none", format!("{} was refused", facts.key));
        }
        return unprogrammed(facts, problems);
    };
    match port.path {
        Some(Path::Kernel) => (
            "kernel",
            format!("port {public} is in the kernel's tables: nothing is better"),
        ),
        Some(Path::Userspace) => ("userspace", why_userspace(facts, port, problems)),
        None => unprogrammed(facts, problems),
    }
}

/// The daemon knows of the wish and has not answered it.
fn unprogrammed(facts: &PortFacts, problems: &mut Vec<Problem>) -> (&'static str, String) {
    problems.push(Problem::new(
        format!("{} is not programmed yet", facts.key),
        "wait some seconds; if it stays so: exposer-edge status, journalctl -u exposer-edge",
    ));
    ("none", "neither path serves it yet".to_owned())
}

/// Why the userspace path serves a port, and whether that can be mended.
fn why_userspace(facts: &PortFacts, port: &PortStatus, problems: &mut Vec<Problem>) -> String {
    let said = port.refused.as_ref().map(|refused| refused.text.clone());
    if facts.configured == "userspace" {
        return "the setting is --datapath userspace".to_owned();
    }
    if let Some(why) = &facts.why_userspace {
        problems.push(Problem::new(
            format!("the kernel path is off: {why}"),
            "exposer-edge check says what this machine lacks for it",
        ));
        return format!("the kernel path is off: {why}");
    }
    // The cell says it: the kernel path has handed the port over for good, as the Service asks for what only userspace
    // can do.
    if facts.mode == Some(PortMode::Userspace) {
        return said.unwrap_or_else(|| "the Service asks for what only userspace can do".to_owned());
    }
    let why = said.unwrap_or_else(|| "the kernel path did not take it".to_owned());
    problems.push(Problem::new(
        why.clone(),
        "it is tried again every ten seconds; if it stays so: journalctl -u exposer-edge",
    ));
    why
}

/// A port of which the daemon says nothing, or there is none.
fn untold(facts: &PortFacts, problems: &mut Vec<Problem>) -> (&'static str, String) {
    let managed = matches!(facts.mode, Some(PortMode::Masquerade | PortMode::Userspace));
    if !facts.daemon && managed {
        // That the daemon is away is told once, for all ports.
        let why = match (facts.mode, facts.fresh) {
            (Some(PortMode::Masquerade), true) => {
                "by the pinned maps; without the daemon it ends when the heartbeat is too old"
            }
            (Some(PortMode::Masquerade), false) => {
                "the heartbeat is too old: existing connections go on, no new one is made"
            }
            _ => "only the daemon serves it, and it does not answer",
        };
        let serves = facts.mode == Some(PortMode::Masquerade) && facts.fresh && facts.service.is_some();
        return (if serves { "kernel" } else { "none" }, why.to_owned());
    }
    if managed {
        return (
            "none",
            "its Service is gone: connections that were there drain, new ones find nothing".to_owned(),
        );
    }
    let (who, remedy) = match (&facts.listener, facts.daemon) {
        (Some((who, false)), _) => (
            format!("{who} listens there: its packets are the host's own"),
            "nothing, if that is meant; else stop that program and annotate a Service with the port",
        ),
        (_, true) => (
            "no Service has asked for it".to_owned(),
            "annotate the Service with expose.neverup.at/ports; kubectl describe shows what became of it",
        ),
        (_, false) => (
            "it is not in the pinned maps".to_owned(),
            "start the daemon, then ask again: systemctl start exposer-edge",
        ),
    };
    problems.push(Problem::new(
        format!("{} is not a port of Exposer", facts.key),
        remedy,
    ));
    ("none", who)
}

/// What stands before the userspace path, which is also the fallback of the kernel path.
fn in_the_way(facts: &PortFacts, problems: &mut Vec<Problem>) {
    if let Some(Blocker { rule, remedy }) = &facts.blocked {
        problems.push(Problem::new(
            format!(
                "the firewall blocks the userspace path of {}, also as the fallback: {rule}",
                facts.key
            ),
            remedy.clone(),
        ));
    }
    if let Some(rule) = &facts.redirected {
        problems.push(Problem::new(
            format!(
                "a nat rule takes {} away from the userspace path: {rule}",
                facts.key
            ),
            "remove that rule (Docker: unpublish the port), or give the Service another port",
        ));
    }
    match &facts.listener {
        None if facts.daemon => problems.push(Problem::new(
            format!("nobody listens on {}: it has no fallback", facts.key),
            "journalctl -u exposer-edge says why the daemon could not; then systemctl restart exposer-edge",
        )),
        Some((who, false)) => problems.push(Problem::new(
            format!(
                "{who} listens on {}: it gets what the kernel path passes",
                facts.key
            ),
            "stop that program, or give the Service another port",
        )),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
