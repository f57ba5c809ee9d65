//! `exposer-edge explain`: which path serves a public port and why not a better one, how the programs are attached and
//! who stands beside them, what a client's packet would meet, and what to do about each thing that is wrong.
//!
//! It reads the pinned maps and the host itself, so it works without a daemon, and says what it then can't know. With
//! `--output json` it prints one `Answer`; fields are added, never renamed. Exit status: 0 as good as it gets on this
//! machine and with these settings, 1 something is to be mended.

mod counters;
mod facts;
mod interfaces;
mod packet;
mod pins;
mod port;
mod render;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use exposer_common::model::Protocol;
use serde::Serialize;

use super::output;
use crate::args::{ExplainArgs, Output};
use crate::datapath::BindingKey;
use crate::status::ReasonCount;
use counters::Trouble;
use facts::Facts;
use interfaces::InterfaceAnswer;
use port::PortAnswer;

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Problem {
    what: String,
    /// What to do about it.
    remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Everything that is told.
#[derive(Clone, Debug, Serialize)]
struct Answer {
    /// Whether there is nothing to mend.
    as_good_as_it_gets: bool,
    /// Whether the daemon answers.
    daemon: bool,
    /// Age of its word in the pinned maps; none where there are no maps.
    heartbeat: Option<String>,
    /// What concerns the edge as a whole.
    problems: Vec<Problem>,
    /// What could not be read.
    notes: Vec<String>,
    interfaces: Vec<InterfaceAnswer>,
    ports: Vec<PortAnswer>,
    /// Counters that tell of trouble, since the maps were made.
    troubles: Vec<Trouble>,
}

/// Prints the explanation.
///
/// # Errors
///
/// When the port or Service is not known, or standard output can't be written to.
pub async fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let facts = Facts::gather(args).await?;
    let wanted = match &args.target {
        None => facts.ports(),
        Some(text) => target(text, &facts)?,
    };
    let answer = answer(&facts, &wanted);
    match args.output {
        Output::Json => output::json(&answer)?,
        Output::Table => output::line(&render::render(&answer))?,
    }
    Ok(if answer.as_good_as_it_gets {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The ports that were asked for: `PORT`, `PORT/PROTO`, `NAMESPACE/NAME` or `AGENT:NAMESPACE/NAME`.
fn target(text: &str, facts: &Facts) -> anyhow::Result<BTreeSet<BindingKey>> {
    if let Some(ports) = parse_port(text)? {
        let known = facts.ports();
        let served: BTreeSet<_> = ports.intersection(&known).copied().collect();
        // A bare number means whichever of TCP and UDP is served, or both where neither is.
        return Ok(if served.is_empty() { ports } else { served });
    }
    if facts.daemon.is_none() {
        bail!(
            "the daemon does not answer, and only it knows the names of Services: ask for a port, as in 25565/tcp, or start it"
        );
    }
    facts.ports_of(text).with_context(|| {
        format!("no Service {text} is known to the edge; exposer-edge status lists them, and a port is written as in 25565/tcp")
    })
}

/// A port with its protocol, or both protocols of a bare port; none if it looks like the name of a Service.
fn parse_port(text: &str) -> anyhow::Result<Option<BTreeSet<BindingKey>>> {
    let (number, protocols) = match text.split_once('/') {
        None => (text, Protocol::ALL.to_vec()),
        Some((number, "tcp")) => (number, vec![Protocol::Tcp]),
        Some((number, "udp")) => (number, vec![Protocol::Udp]),
        Some(_) => return Ok(None),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let port: u16 = number
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .with_context(|| format!("{number} is no port: 1 to 65535"))?;
    Ok(Some(
        protocols
            .into_iter()
            .map(|protocol| BindingKey { port, protocol })
            .collect(),
    ))
}

fn answer(facts: &Facts, wanted: &BTreeSet<BindingKey>) -> Answer {
    let interfaces: Vec<_> = facts.interfaces.iter().map(interfaces::judge).collect();
    let ports: Vec<_> = wanted
        .iter()
        .map(|key| {
            let known = facts.port(*key);
            let mut answer = port::judge(&known);
            answer.packet = facts
                .client
                .map(|client| packet::follow(&facts.packet(&known, client)));
            answer
        })
        .collect();
    let problems = general(facts);
    let wrong = interfaces.iter().map(|interface| interface.problems.len());
    let wrong: usize = wrong.chain(ports.iter().map(|port| port.problems.len())).sum();
    Answer {
        as_good_as_it_gets: wrong == 0 && problems.is_empty(),
        daemon: facts.daemon.is_some(),
        heartbeat: facts.pins.as_ref().map(|_| facts.heartbeat()),
        problems,
        notes: notes(facts),
        interfaces,
        ports,
        troubles: troubles(facts),
    }
}

/// What concerns the edge as a whole.
fn general(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    match &facts.daemon {
        None => problems.push(Problem::new(
            facts.daemon_error.clone().unwrap_or_default(),
            "systemctl start exposer-edge; until then nothing is served by the userspace path",
        )),
        Some(status) => problems.extend(status.not_ready.iter().map(|reason| {
            Problem::new(
                format!("the daemon is not ready: {reason}"),
                "mend that first; exposer-edge check looks at the whole machine",
            )
        })),
    }
    if facts.pins.as_ref().is_some_and(|pins| !pins.is_fresh()) {
        problems.push(Problem::new(
            format!(
                "the kernel path makes no new connection: the daemon's heartbeat is {}",
                facts.heartbeat()
            ),
            "systemctl restart exposer-edge; journalctl -u exposer-edge says why it stopped",
        ));
    }
    problems
}

fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = facts.notes().to_vec();
    let kernel = facts
        .daemon
        .as_ref()
        .is_none_or(|status| status.datapath.configured != "userspace");
    if let (Some(error), true) = (&facts.pins_error, kernel) {
        notes.push(format!("the kernel path's maps can't be read: {error}"));
    }
    notes
}

/// From the maps, else as the daemon counts.
fn troubles(facts: &Facts) -> Vec<Trouble> {
    if let Some(pins) = &facts.pins {
        return counters::troubles(&pins.reasons);
    }
    let told = facts.daemon.iter().flat_map(|status| &status.reasons);
    let counts: Vec<_> = told
        .filter_map(|counted| Some((reason(counted)?, counted.count)))
        .collect();
    counters::troubles(&counts)
}

fn reason(counted: &ReasonCount) -> Option<exposer_common::verdict::Reason> {
    let mut all = exposer_common::verdict::Reason::ALL.iter().copied();
    all.find(|reason| reason.as_str() == counted.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_port_and_what_a_service() {
        let ports = |text: &str| {
            let parsed = parse_port(text).unwrap()?;
            Some(
                parsed
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(ports("443/tcp").as_deref(), Some("443/tcp"));
        assert_eq!(ports("53").as_deref(), Some("53/tcp 53/udp"));
        for service in ["web/nginx", "home:web/nginx", "443/http", "tcp", ""] {
            assert_eq!(ports(service), None, "{service}");
        }
        for wrong in ["0", "65536/tcp", "99999999999"] {
            assert!(parse_port(wrong).is_err(), "{wrong}");
        }
    }
}
