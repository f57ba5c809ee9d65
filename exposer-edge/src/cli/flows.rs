//! `exposer-edge flows`: the connections of the kernel path, from the pinned maps; works without the daemon.
//!
//! With `--output json` it prints an object `{"total", "matching", "flows": […]}`; fields are added, never renamed. A
//! running daemon tells the names of Services; without it they show by number. Exit status: 0 also if no flow matches,
//! 1 when the maps are not there or not readable.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::client;
use super::output::{self, bytes, duration, table};
use crate::args::{FlowsArgs, Output};
use crate::config;
use crate::datapath::kernel::clock;
use crate::datapath::kernel::maps::FlowMaps;
use crate::datapath::kernel::table::{self as flow_table, Flow};

/// One flow as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    protocol: &'static str,
    client: SocketAddrV4,
    public: SocketAddrV4,
    snat: SocketAddrV4,
    backend: SocketAddrV4,
    state: &'static str,
    /// Number of the binding.
    service: u32,
    /// `AGENT:NAMESPACE/NAME`, where the daemon could be asked.
    name: Option<String>,
    generation: u32,
    age_seconds: u64,
    idle_seconds: u64,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Answer {
    /// Flows in the table.
    total: usize,
    /// Flows that the filters let through.
    matching: usize,
    /// At most `--limit` of them, the most recently seen first.
    flows: Vec<Shown>,
}

/// Prints the flows.
///
/// # Errors
///
/// When the maps are not there or not readable, or standard output can't be written to.
pub async fn run(args: &FlowsArgs) -> anyhow::Result<ExitCode> {
    let bpffs = Path::new(&args.bpffs.bpffs);
    let maps = FlowMaps::open_pinned(bpffs)
        .context("there is no flow table: the kernel path is off, or never ran. `exposer-edge check` says what it needs")?;
    let flows = flow_table::flows(&maps, clock::now()?)?;
    let names = names(&args.admin.admin_addr).await;
    let answer = select(args, flows, &names);
    match args.output {
        Output::Json => output::json(&answer)?,
        Output::Table => output::line(&render(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of Services by the number of their bindings; empty when the daemon does not answer.
async fn names(admin: &str) -> BTreeMap<u32, String> {
    let Ok(address) = config::admin_address(admin) else {
        return BTreeMap::new();
    };
    let Ok(status) = client::status(address).await else {
        return BTreeMap::new();
    };
    let ports = status.services.iter().flat_map(|service| {
        let name = service.service.to_string();
        service
            .ports
            .iter()
            .filter_map(move |port| Some((port.index?, name.clone())))
    });
    ports.collect()
}

/// The flows that the filters let through, the most recently seen first.
fn select(args: &FlowsArgs, flows: Vec<Flow>, names: &BTreeMap<u32, String>) -> Answer {
    let total = flows.len();
    let mut flows: Vec<Shown> = flows
        .into_iter()
        .filter(|flow| {
            args.client.is_none_or(|client| *flow.client.ip() == client)
                && args.port.is_none_or(|port| flow.public.port() == port)
        })
        .map(|flow| show(&flow, names))
        .filter(|flow| args.service.as_deref().is_none_or(|wanted| is_of(flow, wanted)))
        .collect();
    flows.sort_by_key(|flow| (flow.idle_seconds, flow.client, flow.public));
    let matching = flows.len();
    if args.limit > 0 {
        flows.truncate(args.limit);
    }
    Answer {
        total,
        matching,
        flows,
    }
}

/// Whether `wanted` names the flow's Service: its number, `NAMESPACE/NAME` or `AGENT:NAMESPACE/NAME`.
fn is_of(flow: &Shown, wanted: &str) -> bool {
    let by_name = |name: &String| name == wanted || name.split_once(':').is_some_and(|(_, id)| id == wanted);
    flow.name.as_ref().is_some_and(by_name) || wanted.parse() == Ok(flow.service)
}

fn show(flow: &Flow, names: &BTreeMap<u32, String>) -> Shown {
    let Flow {
        protocol,
        client,
        public,
        snat,
        backend,
        state,
        service,
        generation,
        age,
        idle,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    } = *flow;
    Shown {
        protocol: protocol.as_str(),
        client,
        public,
        snat,
        backend,
        state: state.as_str(),
        service,
        name: names.get(&service).cloned(),
        generation,
        age_seconds: Duration::from_nanos(age).as_secs(),
        idle_seconds: Duration::from_nanos(idle).as_secs(),
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    }
}

fn render(answer: &Answer) -> String {
    let Answer {
        total,
        matching,
        flows,
    } = answer;
    let summary = format!("{} of {matching} matching flows, {total} in all", flows.len());
    if flows.is_empty() {
        return summary;
    }
    let headings = [
        "PROTO", "CLIENT", "PUBLIC", "SNAT", "BACKEND", "STATE", "AGE", "IDLE", "IN", "OUT", "SERVICE",
    ];
    let seconds = |count| duration(Duration::from_secs(count));
    let row = |flow: &Shown| {
        [
            flow.protocol.to_owned(),
            flow.client.to_string(),
            flow.public.to_string(),
            flow.snat.to_string(),
            flow.backend.to_string(),
            flow.state.to_owned(),
            seconds(flow.age_seconds),
            seconds(flow.idle_seconds),
            format!("{} pkt, {}", flow.packets_in, bytes(flow.bytes_in)),
            format!("{} pkt, {}", flow.packets_out, bytes(flow.bytes_out)),
            flow.name.clone().unwrap_or_else(|| format!("#{}", flow.service)),
        ]
    };
    format!("{}\n\n{summary}", table(headings, flows.iter().map(row)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use exposer_common::net::state::State;
    use exposer_common::service::L4Proto;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(flags: &[&str]) -> FlowsArgs {
        match Cli::try_parse_from(["exposer-edge", "flows"].iter().chain(flags))
            .unwrap()
            .command
        {
            Command::Flows(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn flow(client: &str, port: u16, service: u32, idle: u64) -> Flow {
        Flow {
            protocol: L4Proto::Tcp,
            client: client.parse().unwrap(),
            public: SocketAddrV4::new([203, 0, 113, 9].into(), port),
            snat: "10.0.0.1:2000".parse().unwrap(),
            backend: "10.96.0.10:80".parse().unwrap(),
            state: State::Established,
            service,
            generation: 1,
            age: 65_000_000_000,
            idle: Duration::from_secs(idle).as_nanos().try_into().unwrap(),
            packets_in: 3,
            bytes_in: 2048,
            packets_out: 4,
            bytes_out: 10,
        }
    }

    fn three() -> Vec<Flow> {
        vec![
            flow("198.51.100.1:1000", 80, 1, 9),
            flow("198.51.100.2:1000", 80, 1, 2),
            flow("198.51.100.1:1001", 443, 2, 5),
        ]
    }

    fn clients(flags: &[&str]) -> (usize, Vec<String>) {
        let names = BTreeMap::from([(1, "default:web/nginx".to_owned())]);
        let answer = select(&args(flags), three(), &names);
        assert_eq!(answer.total, 3);
        (
            answer.matching,
            answer.flows.iter().map(|flow| flow.client.to_string()).collect(),
        )
    }

    #[test]
    fn filters() {
        let all = ["198.51.100.2:1000", "198.51.100.1:1001", "198.51.100.1:1000"];
        assert_eq!(clients(&[]), (3, all.map(str::to_owned).to_vec()));
        for (flags, count) in [
            (&["--client", "198.51.100.1"][..], 2),
            (&["--port", "443"], 1),
            (&["--service", "web/nginx"], 2),
            (&["--service", "default:web/nginx"], 2),
            (&["--service", "2"], 1),
            (&["--service", "nginx"], 0),
            (&["--client", "198.51.100.1", "--port", "80"], 1),
        ] {
            assert_eq!(clients(flags).0, count, "{flags:?}");
        }
        assert_eq!(clients(&["--limit", "1"]), (3, vec![all[0].to_owned()]));
        assert_eq!(clients(&["--limit", "0"]).1.len(), 3);
    }

    #[test]
    fn the_table_is_readable() {
        let names = BTreeMap::from([(1, "default:web/nginx".to_owned())]);
        let text = render(&select(&args(&["--port", "80"]), three(), &names));
        for part in [
            "tcp    198.51.100.2:1000  203.0.113.9:80  10.0.0.1:2000  10.96.0.10:80  established  1m 5s  2s",
            "3 pkt, 2.0 KiB",
            "default:web/nginx",
            "2 of 2 matching flows, 3 in all",
        ] {
            assert!(text.contains(part), "\"{part}\" is not in\n{text}");
        }
    }
}
