//! Both paths as one: userspace first, which reserves the port, then the kernel path on top of it (DESIGN §1.1, §3).
//!
//! What the kernel path can't take stays on the userspace path, with the reason; where the reason may pass, it is
//! tried again.

use std::collections::BTreeMap;

use exposer_common::model::Protocol;
use exposer_common::proto::message::Path;
use tracing::warn;

use super::accelerator::{Accelerator, Fallback};
use super::{Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal};
use crate::control::programming::Served;
use crate::net::environment::Environment;

/// Every so many ticks (seconds), what the kernel path refused is tried again, and UDP sessions are handed over again.
const RETRY_TICKS: u32 = 10;

/// A port that is served otherwise than was reported before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// Which port.
    pub key: BindingKey,
    /// Generation of its binding.
    pub generation: u32,
    /// How it is served.
    pub served: Served,
}

/// What stands between a binding and the kernel path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Downgrade {
    /// Nothing: it is on the kernel path.
    None,
    /// A reason that may pass.
    Passing(String),
    /// A reason that stays as long as the binding is what it is.
    Lasting(String),
}

struct Port {
    binding: Binding,
    removal: Removal,
    downgrade: Downgrade,
    /// What was told last.
    told: Served,
}

/// See the [module](self).
pub struct Combined<U, K> {
    userspace: U,
    kernel: Option<K>,
    ports: BTreeMap<BindingKey, Port>,
    environment: Environment,
    /// What the kernel path said of the environment, if it could not take it over as a whole.
    network_error: Option<String>,
    ticks: u32,
}

impl<U: Fallback, K: Accelerator> Combined<U, K> {
    /// The userspace path, and the kernel path where there is one.
    #[must_use]
    pub fn new(userspace: U, kernel: Option<K>) -> Self {
        Self {
            userspace,
            kernel,
            ports: BTreeMap::new(),
            environment: Environment::default(),
            network_error: None,
            ticks: 0,
        }
    }

    /// The kernel path, to ask it about itself.
    #[must_use]
    pub const fn kernel(&self) -> Option<&K> {
        self.kernel.as_ref()
    }

    /// Gives the userspace path back; what the kernel path does goes on without us.
    #[must_use]
    pub fn into_userspace(self) -> U {
        self.userspace
    }

    /// Serves `binding` on both paths, or on the userspace path with the reason.
    ///
    /// # Errors
    ///
    /// When the port can't be listened on; neither path serves it then.
    pub fn serve(&mut self, binding: &Binding, removal: Removal) -> Result<Served, DatapathError> {
        if let Err(error) = self.userspace.upsert(binding, removal) {
            self.ports.remove(&binding.key);
            if let Some(kernel) = &mut self.kernel {
                kernel.remove(binding.key, removal)?;
            }
            return Err(error);
        }
        let mut port = Port {
            binding: binding.clone(),
            removal,
            downgrade: Downgrade::None,
            told: Served {
                path: Path::Userspace,
                downgrade: None,
            },
        };
        self.try_kernel(&mut port);
        let served = self.served(&port.downgrade, self.obstacle().as_deref());
        port.told = served.clone();
        self.ports.insert(binding.key, port);
        Ok(served)
    }

    /// Serves `key` no more: first no new flows in the kernel, then none in userspace.
    ///
    /// # Errors
    ///
    /// When one of the paths could not; the other has.
    pub fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError> {
        self.ports.remove(&key);
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel.remove(key, removal),
            None => Ok(()),
        };
        let userspace = self.userspace.remove(key, removal);
        kernel.and(userspace)
    }

    /// Takes over a changed environment. What either path could not do is logged; ports whose path changed are given
    /// back.
    pub fn set_environment(&mut self, environment: &Environment) -> Vec<PathChange> {
        if let Err(error) = self.userspace.set_environment(environment) {
            warn!(component = "datapath", path = "userspace", %error, "the changed network could not be taken over as a whole");
        }
        self.environment = environment.clone();
        self.renew_kernel();
        self.review()
    }

    fn renew_kernel(&mut self) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        let error = kernel
            .set_environment(&self.environment)
            .err()
            .map(|error| error.to_string());
        if let Some(error) = &error
            && self.network_error.as_ref() != Some(error)
        {
            warn!(
                component = "datapath",
                path = "kernel",
                error,
                "the changed network could not be taken over as a whole"
            );
        }
        self.network_error = error;
    }

    /// Periodic work of both paths, once a second.
    pub fn tick(&mut self) -> Vec<PathChange> {
        for (path, result) in [
            ("userspace", Some(self.userspace.tick())),
            ("kernel", self.kernel.as_mut().map(Datapath::tick)),
        ] {
            if let Some(Err(error)) = result {
                warn!(component = "datapath", path, %error, "periodic work failed");
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.kernel.is_none() || !self.ticks.is_multiple_of(RETRY_TICKS) {
            return Vec::new();
        }
        if self.network_error.is_some() {
            self.renew_kernel();
        }
        let changes = self.review();
        let udp: Vec<BindingKey> = self
            .ports
            .iter()
            .filter(|(key, port)| key.protocol == Protocol::Udp && port.downgrade == Downgrade::None)
            .map(|(key, _)| *key)
            .collect();
        for key in udp {
            self.hand_over(key);
        }
        changes
    }

    /// Leaves the UDP clients that the userspace path serves to it.
    fn hand_over(&mut self, key: BindingKey) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        if key.protocol != Protocol::Udp {
            return;
        }
        let clients = self.userspace.live_udp_clients(key);
        if clients.is_empty() {
            return;
        }
        if let Err(error) = kernel.hand_over(&clients) {
            warn!(component = "datapath", path = "kernel", %key, %error, "UDP sessions may change their path");
        }
    }

    /// Counters of both paths together.
    #[must_use]
    pub fn stats(&self, key: BindingKey) -> Option<BindingStats> {
        let userspace = self.userspace.stats(key);
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.stats(key));
        match (userspace, kernel) {
            (Some(one), Some(other)) => Some(add(one, other)),
            (one, other) => one.or(other),
        }
    }

    /// Counters of every port.
    #[must_use]
    pub fn all_stats(&self) -> BTreeMap<BindingKey, BindingStats> {
        self.ports
            .keys()
            .filter_map(|key| Some((*key, self.stats(*key)?)))
            .collect()
    }

    /// Tries again what the kernel path refused for a reason that may pass, and gives back what is served otherwise
    /// than was told.
    fn review(&mut self) -> Vec<PathChange> {
        let passing: Vec<BindingKey> = self
            .ports
            .iter()
            .filter(|(_, port)| matches!(port.downgrade, Downgrade::Passing(_)))
            .map(|(key, _)| *key)
            .collect();
        for key in passing {
            if let Some(mut port) = self.ports.remove(&key) {
                self.try_kernel(&mut port);
                self.ports.insert(key, port);
            }
        }
        let obstacle = self.obstacle();
        let mut ports = std::mem::take(&mut self.ports);
        let mut changes = Vec::new();
        for (key, port) in &mut ports {
            let served = self.served(&port.downgrade, obstacle.as_deref());
            if served != port.told {
                port.told = served.clone();
                changes.push(PathChange {
                    key: *key,
                    generation: port.binding.generation,
                    served,
                });
            }
        }
        self.ports = ports;
        changes
    }

    /// Why the kernel path carries nothing at present; none if it does, or there is none.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let obstacle = self.kernel.as_ref()?.obstacle()?;
        Some(match &self.network_error {
            Some(error) => error.clone(),
            None => obstacle,
        })
    }

    fn try_kernel(&mut self, port: &mut Port) {
        // Before the kernel path serves the port: no datagram of a live session may find it without this.
        self.hand_over(port.binding.key);
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        let Err(error) = kernel.upsert(&port.binding, port.removal) else {
            port.downgrade = Downgrade::None;
            return;
        };
        port.downgrade = match error {
            // The kernel path has taken the port out by itself.
            DatapathError::Unsupported(text) => Downgrade::Lasting(text),
            other => {
                // Nothing of an earlier generation may go on serving the port with another backend.
                if let Err(error) = kernel.remove(port.binding.key, port.removal) {
                    warn!(
                        component = "datapath", path = "kernel", key = %port.binding.key, %error,
                        "a refused port could not be taken out"
                    );
                }
                Downgrade::Passing(other.to_string())
            }
        };
    }

    fn served(&self, downgrade: &Downgrade, obstacle: Option<&str>) -> Served {
        let reason = match downgrade {
            Downgrade::None => obstacle,
            Downgrade::Passing(reason) | Downgrade::Lasting(reason) => Some(reason.as_str()),
        };
        let path = match (&self.kernel, reason) {
            (Some(_), None) => Path::Kernel,
            _ => Path::Userspace,
        };
        Served {
            path,
            downgrade: reason.map(str::to_owned),
        }
    }
}

fn add(one: BindingStats, other: BindingStats) -> BindingStats {
    let BindingStats {
        flows,
        active,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        failed,
    } = one;
    BindingStats {
        flows: flows.saturating_add(other.flows),
        active: active.saturating_add(other.active),
        packets_in: packets_in.saturating_add(other.packets_in),
        bytes_in: bytes_in.saturating_add(other.bytes_in),
        packets_out: packets_out.saturating_add(other.packets_out),
        bytes_out: bytes_out.saturating_add(other.bytes_out),
        failed: failed.saturating_add(other.failed),
    }
}
