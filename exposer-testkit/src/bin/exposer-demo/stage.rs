//! The stage of the demo: the network, the cluster, the two binaries, and the pods that the demo plays.

mod observe;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use exposer_testkit::netns::Handle;
use exposer_testkit::process::{Process, project_binary};
use exposer_testkit::tools;
use exposer_testkit::topology::{CLIENT_FAR, CLIENT_ON_LINK, Options, Topology};
use exposer_testkit::traffic::{Client, Server};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::args::Args;
use crate::cluster::{self, Cluster};
use crate::report;
use crate::settings::{self, Route};

/// How long anything of the control path may take before the demo calls it failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that runs. The fields are dropped in their order: processes before the network that they stand in.
pub struct Stage {
    agent: Option<Process>,
    edge: Option<Process>,
    servers: Vec<Server>,
    /// The Kubernetes API.
    pub cluster: Cluster,
    /// Namespaces and WireGuard.
    pub network: Topology,
    /// Bytes of each bulk transfer.
    pub bulk: u64,
    route: Option<Route>,
    log_level: String,
    addresses: BTreeSet<IpAddr>,
    /// Names of the Services from the manifests.
    examples: Vec<String>,
}

impl Stage {
    /// Makes the network and the cluster, and exposes the Services of the manifests. Neither edge nor agent runs yet.
    pub fn new(args: &Args) -> Result<Self> {
        let manifests = args.manifests.clone().unwrap_or_else(default_manifests);
        let manifests = fs::canonicalize(&manifests)
            .with_context(|| format!("cannot find the manifests {}", manifests.display()))?;
        let services = cluster::services_of(&manifests)?;
        report::step("making namespaces client, edge and home, and WireGuard between edge and home");
        let network = Topology::at_once("demo", Options::default())?;
        let (wireguard, folder) = (network.edge_wg.implementation(), network.folder().to_owned());
        report::note(&format!(
            "WireGuard: {wireguard}, first handshake done; logs in {}",
            folder.display()
        ));
        write_token(&folder.join("token"))?;
        let cluster = match &args.kubeconfig {
            Some(path) => Cluster::real(path, &network.home, &folder)?,
            None => Cluster::embedded(&network.home, &folder)?,
        };
        report::note(&format!("Kubernetes API: {}", cluster.describe()));
        let mut this = Self {
            agent: None,
            edge: None,
            servers: Vec::new(),
            cluster,
            network,
            bulk: args.megabytes.saturating_mul(1_000_000),
            route: None,
            log_level: args.log_level.clone(),
            addresses: BTreeSet::new(),
            examples: Vec::new(),
        };
        for service in services {
            let name = this.expose(service)?;
            this.examples.push(name);
        }
        report::note(&format!(
            "Services of {}: {}",
            manifests.display(),
            this.examples.join(", ")
        ));
        Ok(this)
    }

    /// Sees to it that the edge runs with this datapath and the agent is connected, whatever the row before left.
    pub fn on_path(&mut self, route: Route) -> Result<()> {
        if self.route.is_some_and(|before| before != route) {
            report::note("stopping the edge and detaching its programs (exposer-edge cleanup)");
            if let Some(mut edge) = self.edge.take() {
                edge.end(Signal::SIGTERM, PATIENCE)?;
            }
            let mut command = self.edge_command(route)?;
            tools::run(command.args(["cleanup", "--yes"]))?;
        }
        self.route = Some(route);
        let mut started = false;
        if !runs(&mut self.edge) {
            report::note(&format!(
                "starting exposer-edge with EXPOSER_DATAPATH={}",
                route.setting()
            ));
            self.start_edge(route)?;
            started = true;
        }
        if !runs(&mut self.agent) {
            report::note("starting exposer-agent");
            self.start_agent()?;
        }
        self.wait_ready()?;
        for program in self.status()?.datapath.attachments.iter().filter(|_| started) {
            report::note(&format!(
                "{}: program attached by {}",
                program.interface, program.rung
            ));
        }
        Ok(())
    }

    /// Starts the edge daemon.
    pub fn start_edge(&mut self, route: Route) -> Result<()> {
        let mut command = self.edge_command(route)?;
        command.arg("run");
        self.edge = Some(Process::start(
            "exposer-edge",
            command,
            &self.network.folder().join("edge.log"),
        )?);
        Ok(())
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = self.network.home.command(&binary("exposer-agent")?)?;
        command.arg("run").envs(self.agent_settings());
        self.agent = Some(Process::start(
            "exposer-agent",
            command,
            &self.network.folder().join("agent.log"),
        )?);
        Ok(())
    }

    /// Kills the edge daemon with SIGKILL.
    pub fn kill_edge(&mut self) -> Result<()> {
        let mut edge = self.edge.take().context("the edge does not run")?;
        edge.end(Signal::SIGKILL, PATIENCE).map(|_| ())
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        agent.end(Signal::SIGKILL, PATIENCE).map(|_| ())
    }

    /// Process id of the agent.
    pub fn agent_pid(&self) -> Result<u32> {
        self.agent
            .as_ref()
            .map(Process::pid)
            .context("the agent does not run")
    }

    /// The edge's and the agent's processes, as far as they run.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.edge.iter().chain(&self.agent)
    }

    /// The edge's environment variables.
    pub fn edge_settings(&self, route: Route) -> Vec<(String, String)> {
        settings::edge(
            self.network.folder(),
            self.network.bpffs.path(),
            route,
            &self.log_level,
        )
    }

    fn agent_settings(&self) -> Vec<(String, String)> {
        let kubeconfig = self.cluster.kubeconfig();
        settings::agent(
            self.network.folder(),
            kubeconfig,
            self.cluster.watched(),
            &self.log_level,
        )
    }

    fn edge_command(&self, route: Route) -> Result<Command> {
        let mut command = self.network.edge.command(&binary("exposer-edge")?)?;
        command.envs(self.edge_settings(route));
        Ok(command)
    }

    /// Applies a Service and plays its pods. Returns its name.
    pub fn expose(&mut self, service: Value) -> Result<String> {
        let service = self.cluster.apply(service)?;
        let text = |pointer: &str| {
            service
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let name = text("/metadata/name").context("the Service has no name")?;
        let address: IpAddr = text("/spec/clusterIP")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("the Service {name} has no ClusterIP"))?;
        if !self.addresses.insert(address) {
            return Ok(name);
        }
        self.network.add_any_service_address(address)?;
        for port in service
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let number = port
                .get("port")
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok());
            let at = SocketAddr::new(address, number.context("a Service port that is no port")?);
            let home: &Handle = &self.network.home;
            let server = match port.get("protocol").and_then(Value::as_str) {
                Some("UDP") => Server::udp(home, at, &name)?,
                _ => Server::tcp(home, at, &name)?,
            };
            self.servers.push(server);
        }
        Ok(name)
    }

    /// A client behind the edge's gateway.
    pub fn far_client(&self) -> Client {
        Client::new(self.network.client.handle(), CLIENT_FAR)
    }

    /// A client on the edge's own link.
    pub fn near_client(&self) -> Client {
        Client::new(self.network.client.handle(), CLIENT_ON_LINK)
    }
}

fn runs(process: &mut Option<Process>) -> bool {
    process.as_mut().is_some_and(|process| process.alive().is_ok())
}

fn binary(name: &str) -> Result<String> {
    Ok(project_binary(name)?.to_string_lossy().into_owned())
}

fn default_manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

/// A fresh token of 32 random bytes in hexadecimal, readable by root alone.
fn write_token(path: &Path) -> Result<()> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    fs::File::open("/dev/urandom")?
        .read_exact(&mut bytes)
        .context("cannot read /dev/urandom")?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    cluster::write_private(path, &text)
}
