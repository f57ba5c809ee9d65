//! What the stage asks the edge: its state, its counters, its pins.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use exposer_testkit::process::{Process, wait_until};
use exposer_testkit::tools;

use super::{PATIENCE, Stage};
use crate::settings::Route;
use crate::view::{Counted, Status};

impl Stage {
    /// Asks the daemon for its state.
    pub fn status(&self) -> Result<Status> {
        let mut command = self.edge_command(self.route.unwrap_or(Route::Kernel))?;
        let output = command
            .args(["status", "--output", "json"])
            .output()
            .with_context(|| format!("cannot start {}", tools::show(&command)))?;
        // The status of a daemon that is not ready comes with another exit status than 0.
        Status::parse(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Bytes that the userspace path has carried for a public port, both ways: its status, which the daemon renews
    /// about once a second, is asked until it reaches `at_least`.
    pub fn carried(&self, port: u16, protocol: &str, at_least: u64) -> Result<u64> {
        let what = format!("the status to count {at_least} bytes on {port}/{protocol}");
        let (bytes, _) = wait_until(&what, PATIENCE, || {
            let status = self.status()?;
            if !status.datapath.attachments.is_empty() {
                bail!(
                    "the kernel programs are attached: {:?}",
                    status.datapath.attachments
                );
            }
            let ports = status.services.iter().flat_map(|service| &service.ports);
            let bytes = ports
                .filter(|entry| entry.public_port == Some(port) && entry.protocol == protocol)
                .map(|entry| entry.stats.bytes_in.saturating_add(entry.stats.bytes_out))
                .sum();
            if bytes < at_least {
                bail!("it counts {bytes}");
            }
            Ok(bytes)
        })?;
        Ok(bytes)
    }

    /// What the flow table counts for a public port.
    pub fn counted(&self, port: u16) -> Result<Counted> {
        let mut command = self.edge_command(self.route.unwrap_or(Route::Kernel))?;
        let port = port.to_string();
        command.args(["flows", "--output", "json", "--limit", "0", "--port", &port]);
        Counted::parse(&tools::stdout(&mut command)?)
    }

    /// Waits until the edge is ready, the agent connected, and every example Service answers on the row's path.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait_until("the edge to be ready with the agent's Services", PATIENCE, || {
            for process in self.edge.iter_mut().chain(&mut self.agent) {
                process.alive()?;
            }
            let status = self.status()?;
            let pid = self.edge.as_ref().map(Process::pid);
            if Some(status.pid) != pid {
                bail!(
                    "process {} answers for the edge, not {pid:?} that the demo started",
                    status.pid
                );
            }
            if !status.not_ready.is_empty() {
                bail!("the edge is not ready: {}", status.not_ready.join("; "));
            }
            if status.agents.iter().all(|agent| agent.peer.is_none()) {
                bail!("no agent is connected");
            }
            self.check_path(&status)?;
            for name in &self.examples {
                self.check_service(&status, name)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn check_path(&self, status: &Status) -> Result<()> {
        let wanted = self.route.map_or("", Route::as_str);
        if status.datapath.path.as_deref() != Some(wanted) {
            let why = status
                .datapath
                .why_userspace
                .as_deref()
                .unwrap_or("no reason given");
            bail!(
                "the edge works on {:?}, not on {wanted}: {why}",
                status.datapath.path
            );
        }
        Ok(())
    }

    fn check_service(&self, status: &Status, name: &str) -> Result<()> {
        let service = status
            .service(self.cluster.namespace(), name)
            .with_context(|| format!("the edge does not know the Service {name}"))?;
        if let Some(refused) = &service.refused {
            bail!("the Service {name} is refused: {}", refused.text);
        }
        for port in &service.ports {
            if port.public_port.is_none() || port.path.as_deref() != self.route.map(Route::as_str) {
                let why = port
                    .refused
                    .as_ref()
                    .map_or("no reason given", |refused| &refused.text);
                bail!(
                    "{name} {}/{} answers on {:?}: {why}",
                    port.requested,
                    port.protocol,
                    port.path
                );
            }
        }
        Ok(())
    }

    /// The public address where a Service's port answers on the row's path.
    pub fn answering(&self, name: &str, requested: u16, protocol: &str) -> Result<SocketAddr> {
        let what = format!("{name} {requested}/{protocol} to be published");
        let (port, _) = wait_until(&what, PATIENCE, || {
            let status = self.status()?;
            self.check_service(&status, name)?;
            let service = status.service(self.cluster.namespace(), name);
            service
                .and_then(|service| {
                    service
                        .ports
                        .iter()
                        .find(|port| port.requested == requested && port.protocol == protocol)
                })
                .and_then(|port| port.public_port)
                .with_context(|| format!("{name} has no port {requested}/{protocol}"))
        })?;
        Ok(self.network.public(port))
    }

    /// A pinned map of the edge.
    pub fn pin(&self, map: &str) -> PathBuf {
        let version = format!("v{}", exposer_common::names::LAYOUT_VERSION);
        self.network.bpffs.path().join("exposer").join(version).join(map)
    }
}
