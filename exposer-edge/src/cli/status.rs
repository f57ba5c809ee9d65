//! `exposer-edge status`: what the daemon tells of itself, and what still runs in the kernel without it.
//!
//! With `--output json` it prints [`Status`] as the daemon gave it. Exit status: 0 the daemon answered and is ready,
//! 1 it answered and is not ready, 3 it does not answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exposer_common::names;
use serde::Serialize;

use super::client::{self, ClientError};
use super::output::{self, bytes, duration, table};
use crate::args::{Output, StatusArgs};
use crate::net::environment::LinkState;
use crate::status::{AgentStatus, DatapathStatus, PortStatus, ReasonCount, ServiceStatus, Status};

/// Exit status when the daemon does not answer.
const NO_DAEMON: u8 = 3;

/// Prints the status.
///
/// # Errors
///
/// When the address is none, or standard output can't be written to.
pub async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let address: SocketAddr = crate::config::admin_address(&args.admin.admin_addr)?;
    let status = match client::status(address).await {
        Ok(status) => status,
        Err(error) => return without_daemon(args, &error),
    };
    match args.output {
        Output::Json => output::json(&status)?,
        Output::Table => output::line(&render(&status, now()))?,
    }
    Ok(if status.is_ready() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is printed as JSON when no daemon answers.
#[derive(Serialize)]
struct NoDaemon {
    /// Why it does not answer, and what to look at.
    error: String,
    /// What of it is still pinned on the BPF file system.
    pinned: Vec<PathBuf>,
}

fn without_daemon(args: &StatusArgs, error: &ClientError) -> anyhow::Result<ExitCode> {
    let pinned = pinned(Path::new(&args.bpffs.bpffs));
    match args.output {
        Output::Json => output::json(&NoDaemon {
            error: error.to_string(),
            pinned,
        })?,
        Output::Table => {
            output::line(&format!("{error}\n\n{}", kernel_without_daemon(&pinned)))?;
        }
    }
    Ok(ExitCode::from(NO_DAEMON))
}

/// What is pinned by this layout, sorted; empty when the folder is not there.
fn pinned(bpffs: &Path) -> Vec<PathBuf> {
    let folder = bpffs.join(format!("v{}", names::LAYOUT_VERSION));
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

fn kernel_without_daemon(pinned: &[PathBuf]) -> String {
    if pinned.is_empty() {
        return "Nothing of it is left in the kernel: no port is served.".to_owned();
    }
    let list: Vec<String> = pinned
        .iter()
        .map(|path| format!("  {}", path.display()))
        .collect();
    format!(
        "The kernel still holds these objects: connections of the kernel path go on (exposer-edge flows shows them), \
         and no new one is made once the daemon's heartbeat is too old.\n{}\n\
         Start the daemon to go on: systemctl start exposer-edge. Or end all: exposer-edge cleanup.",
        list.join("\n")
    )
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The whole answer for people, as it is at `now` (seconds since 1970).
fn render(status: &Status, now: u64) -> String {
    let Status {
        version,
        pid,
        started,
        not_ready,
        agents,
        services,
        environment,
        datapath,
        reasons,
    } = status;
    let mut parts = vec![format!(
        "exposer-edge {version}, pid {pid}, up {}",
        since(*started, now)
    )];
    if not_ready.is_empty() {
        parts.push("Ready.".to_owned());
    } else {
        let list: Vec<String> = not_ready.iter().map(|reason| format!("  {reason}")).collect();
        parts.push(format!("NOT READY:\n{}", list.join("\n")));
    }
    let links = [
        interface("public", &environment.wan),
        interface("tunnel", &environment.tunnel),
    ];
    parts.push(table(["INTERFACE", "NAME", "STATE", "MTU", "ADDRESSES"], links));
    parts.push(render_datapath(datapath));
    parts.push(render_agents(agents, now));
    parts.push(render_services(services));
    if !reasons.is_empty() {
        parts.push(render_reasons(reasons));
    }
    parts.join("\n\n")
}

fn since(start: u64, now: u64) -> String {
    duration(Duration::from_secs(now.saturating_sub(start)))
}

fn interface(role: &str, link: &LinkState) -> [String; 5] {
    let name = if link.name.is_empty() {
        "none found"
    } else {
        &link.name
    };
    let state = if link.ifindex.is_some() { "up" } else { "DOWN" };
    let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
    [
        role.to_owned(),
        name.to_owned(),
        state.to_owned(),
        link.mtu.to_string(),
        addresses.join(" "),
    ]
}

fn render_datapath(datapath: &DatapathStatus) -> String {
    let DatapathStatus {
        configured,
        path,
        attachments,
        why_userspace,
        flows,
        flow_slots,
    } = datapath;
    let path = path.map_or("none", path_name);
    let mut lines = vec![format!(
        "Path: {path} (setting: {configured}), {flows} of {flow_slots} flows"
    )];
    if let Some(why) = why_userspace {
        lines.push(format!("  why not the kernel path: {why}"));
    }
    for attachment in attachments {
        let note = attachment
            .note
            .as_ref()
            .map(|note| format!(" ({note})"))
            .unwrap_or_default();
        let (program, interface, rung) = (&attachment.program, &attachment.interface, &attachment.rung);
        lines.push(format!("  {program} on {interface}: {rung}{note}"));
    }
    lines.join("\n")
}

fn render_agents(agents: &[AgentStatus], now: u64) -> String {
    if agents.is_empty() {
        return "No agent has connected.".to_owned();
    }
    let rows = agents.iter().map(|agent| {
        let state = match (agent.peer, agent.expires) {
            (Some(peer), _) => format!("connected from {peer} since {}", since(agent.since, now)),
            (None, Some(end)) => {
                format!(
                    "AWAY since {}, its Services end in {}",
                    since(agent.since, now),
                    since(now, end)
                )
            }
            (None, None) => format!("AWAY since {}", since(agent.since, now)),
        };
        [
            agent.name.clone(),
            state,
            agent.services.to_string(),
            agent.software.clone(),
        ]
    });
    table(["AGENT", "STATE", "SERVICES", "SOFTWARE"], rows)
}

fn render_services(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return "No Service.".to_owned();
    }
    let headings = [
        "SERVICE",
        "SUBDOMAIN",
        "PORT",
        "PATH",
        "BACKEND",
        "ACTIVE",
        "TOTAL",
        "IN",
        "OUT",
        "NOTE",
    ];
    table(headings, services.iter().flat_map(service_rows))
}

fn service_rows(service: &ServiceStatus) -> Vec<[String; 10]> {
    let name = service.service.to_string();
    let mut rows: Vec<_> = service
        .ports
        .iter()
        .map(|port| port_row(&name, &service.subdomain, port))
        .collect();
    if let Some(refused) = &service.refused {
        let mut row: [String; 10] = std::array::from_fn(|_| "-".to_owned());
        let [first, second, .., last] = &mut row;
        (*first, *second) = (name, service.subdomain.clone());
        *last = format!("REFUSED: {}", refused.text);
        rows.push(row);
    }
    rows
}

fn port_row(name: &str, subdomain: &str, port: &PortStatus) -> [String; 10] {
    let dash = || "-".to_owned();
    let public = port
        .public_port
        .map_or_else(dash, |number| format!("{number}/{}", port.protocol));
    let moved = port.public_port.is_some_and(|number| number != port.requested);
    let note = match (&port.refused, port.public_port) {
        (Some(refused), None) => format!("REFUSED {}/{}: {}", port.requested, port.protocol, refused.text),
        (Some(refused), Some(_)) => refused.text.clone(),
        (None, _) if moved => format!("asked for {}", port.requested),
        (None, _) => String::new(),
    };
    [
        name.to_owned(),
        subdomain.to_owned(),
        public,
        port.path.map_or("-", path_name).to_owned(),
        port.backend.map_or_else(dash, |backend| backend.to_string()),
        port.stats.active.to_string(),
        port.stats.flows.to_string(),
        bytes(port.stats.bytes_in),
        bytes(port.stats.bytes_out),
        note,
    ]
}

fn render_reasons(reasons: &[ReasonCount]) -> String {
    let row = |reason: &ReasonCount| {
        [
            reason.reason.clone(),
            reason.verdict.clone(),
            reason.count.to_string(),
            reason.text.clone(),
        ]
    };
    table(["REASON", "VERDICT", "COUNT", "MEANING"], reasons.iter().map(row))
}

const fn path_name(path: exposer_common::proto::message::Path) -> &'static str {
    match path {
        exposer_common::proto::message::Path::Kernel => "kernel",
        exposer_common::proto::message::Path::Userspace => "userspace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn everything_is_in_the_tables() {
        let text = render(&example(), 1_790_000_160);
        for part in [
            "exposer-edge 0.1.0, pid 4242, up 2m 40s",
            "NOT READY:\n  the tunnel interface wg0 is down",
            "connected from 10.0.0.2:40000 since 1m",
            "default:games/minecraft  mc         25565/tcp  kernel  10.96.0.10:25565  2       12     1.1 MiB",
            "REFUSED: the subdomain is taken",
            "wan_ingress on eth0: clsact (TCX needs Linux 6.6)",
            "FORWARD_HIT  redirect  900",
        ] {
            assert!(text.contains(part), "\"{part}\" is not in\n{text}");
        }
    }

    #[test]
    fn a_daemon_that_starts_is_not_ready() {
        let text = render(&Status::default(), 5);
        for part in [
            "NOT READY:\n  the daemon is starting",
            "No agent has connected.",
            "No Service.",
            "none found",
            "Path: none",
        ] {
            assert!(text.contains(part), "\"{part}\" is not in\n{text}");
        }
    }
}
