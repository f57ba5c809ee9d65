//! The kernel path: loads the programs, attaches them, and keeps their maps as the bindings and the host's network
//! say. Maps and links are pinned, so that flows outlive this process (DESIGN §1.3).
//!
//! | file | duty |
//! |---|---|
//! | [`object`] | the embedded object file |
//! | [`load`] | loading it, adopting pinned maps |
//! | [`attach`] | the attach ladder |
//! | [`maps`], [`batch`], [`table`] | typed access to the maps, the flow table among them |
//! | [`limits`] | how many flows may be made |
//! | [`network`] | interfaces and prefixes |
//! | [`cells`] | single cells of the port table and the services |
//! | [`services`] | bindings, and what becomes of their flows when they go |
//! | [`sweep`] | expiry |
//! | [`cleanup`] | taking everything away |

pub mod attach;
pub mod batch;
pub mod cells;
pub mod cleanup;
pub mod clock;
pub mod error;
pub mod limits;
pub mod load;
pub mod maps;
pub mod network;
pub mod object;
pub mod services;
pub mod sweep;
pub mod table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use aya::Ebpf;
use exposer_common::flow::{Control, FlowKey};
use exposer_common::names::{PROG_TUNNEL_INGRESS, PROG_WAN_INGRESS};
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use self::attach::Attached;
use self::error::bpf;
use self::maps::{ConfigMaps, FlowMaps};
use self::services::Services;
use self::sweep::Sweeper;
use super::{Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal};
use crate::config::PortRange;
use crate::net::environment::{Environment, LinkState};

/// What the kernel path is told once.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// Folder on a bpffs below which everything is pinned.
    pub bpffs: PathBuf,
    /// Zone of the public interface, 1–15.
    pub wan_zone: u8,
    /// Zone of the tunnel interface, 1–15, another one.
    pub tunnel_zone: u8,
    /// Source ports of masqueraded packets.
    pub snat_range: PortRange,
    /// Age of the heartbeat beyond which the programs make no new flow.
    pub heartbeat_max_age: Duration,
    /// New flows a second for each client address; 0 = no limit.
    pub new_flows_per_source: u32,
}

/// The kernel path.
pub struct KernelDatapath {
    ebpf: Ebpf,
    maps: ConfigMaps,
    services: Services,
    sweeper: Sweeper,
    settings: KernelSettings,
    wan: Option<Attached>,
    tunnel: Option<Attached>,
}

impl KernelDatapath {
    /// Loads `object`, adopting maps and links that an earlier run has pinned. Nothing is attached before
    /// [`Datapath::set_environment`].
    ///
    /// # Errors
    ///
    /// What is missing on this host, and what to do about it; the userspace path works all the same.
    pub fn open(settings: KernelSettings, object: &[u8]) -> Result<Self, DatapathError> {
        let mut ebpf = load::load(object, &settings.bpffs, settings.wan_zone, settings.tunnel_zone)?;
        let maps = ConfigMaps::from_object(&mut ebpf)?;
        let timeouts = Arc::new(RwLock::new(HashMap::new()));
        let sweeper = Sweeper::start(FlowMaps::from_object(&mut ebpf)?, Arc::clone(&timeouts))?;
        let services = Services::adopt(&maps, &settings, timeouts)?;
        Ok(Self {
            ebpf,
            maps,
            services,
            sweeper,
            settings,
            wan: None,
            tunnel: None,
        })
    }

    /// The attached programs: of the public interface, and of the tunnel.
    #[must_use]
    pub const fn attached(&self) -> [(&'static str, Option<&Attached>); 2] {
        [
            (PROG_WAN_INGRESS, self.wan.as_ref()),
            (PROG_TUNNEL_INGRESS, self.tunnel.as_ref()),
        ]
    }

    /// Packets by reason; reasons that were never given are left out.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn reason_counts(&self) -> Result<Vec<(Reason, u64)>, DatapathError> {
        self.maps.reason_counts()
    }

    /// Flows at the last sweep, at most ten seconds ago.
    #[must_use]
    pub fn flow_count(&self) -> u64 {
        self.sweeper.live().total
    }

    /// Tells the programs which UDP clients the userspace path serves, as (client, public) pairs: their flows stay
    /// there (DESIGN §2, hand-over). To be repeated every ten seconds while a session lives.
    ///
    /// # Errors
    ///
    /// When the map can't be written.
    pub fn hand_over(&mut self, clients: &[(SocketAddr, SocketAddr)]) -> Result<(), DatapathError> {
        let now = now()?;
        for (client, public) in clients {
            let (SocketAddr::V4(client), SocketAddr::V4(public)) = (client, public) else {
                continue;
            };
            let key = FlowKey {
                saddr: client.ip().octets(),
                daddr: public.ip().octets(),
                sport: client.port().to_be_bytes(),
                dport: public.port().to_be_bytes(),
                proto: L4Proto::Udp as u8,
                zone: self.settings.wan_zone,
                pad: [0; 2],
            };
            self.maps
                .handed
                .insert(key, now, 0)
                .map_err(bpf("writing the map HANDED"))?;
        }
        Ok(())
    }

    /// Tells the programs that the control plane lives.
    fn heartbeat(&mut self) -> Result<(), DatapathError> {
        let max_age = u64::try_from(self.settings.heartbeat_max_age.as_nanos()).unwrap_or(u64::MAX);
        let control = Control {
            heartbeat: now()?,
            max_age,
            per_source: limits::per_source(self.settings.new_flows_per_source),
            per_service: limits::PER_SERVICE,
            overall: limits::OVERALL,
        };
        self.maps
            .control
            .set(0, control, 0)
            .map_err(bpf("writing the map CONTROL"))
    }

    /// Brings programs and `LINKS` to what the interfaces are.
    fn set_links(&mut self, environment: &Environment) -> Result<(), DatapathError> {
        let links = load::link_dir(&self.settings.bpffs);
        let ends = [
            (
                PROG_WAN_INGRESS,
                &environment.wan,
                self.settings.wan_zone,
                &mut self.wan,
            ),
            (
                PROG_TUNNEL_INGRESS,
                &environment.tunnel,
                self.settings.tunnel_zone,
                &mut self.tunnel,
            ),
        ];
        for (name, link, zone, attached) in ends {
            // The cell first: a program must never redirect to an index that is another interface's by now.
            let entry = network::link_entry(link);
            self.maps
                .links
                .set(zone.into(), entry, 0)
                .map_err(bpf("writing the map LINKS"))?;
            let Some(ifindex) = link.ifindex else {
                *attached = None;
                continue;
            };
            if attached
                .as_ref()
                .is_some_and(|at| at.ifindex == ifindex && at.interface == link.name)
            {
                continue;
            }
            *attached = None;
            require_layer(name, link)?;
            let at = attach::attach(
                load::program(&mut self.ebpf, name)?,
                name,
                &link.name,
                ifindex,
                &links,
            )?;
            tracing::info!(
                component = "kernel", action = "attach", program = name, interface = %link.name, rung = at.rung.as_str(),
                note = at.note.as_deref(), "program attached"
            );
            *attached = Some(at);
        }
        Ok(())
    }
}

/// The public interface must have Ethernet headers, the tunnel none.
fn require_layer(program: &str, link: &LinkState) -> Result<(), DatapathError> {
    let wanted = program == PROG_WAN_INGRESS;
    if link.ethernet == wanted {
        return Ok(());
    }
    let text = if wanted {
        format!(
            "the public interface {} is not Ethernet: its ports are served by the userspace path",
            link.name
        )
    } else {
        format!(
            "the tunnel interface {} is an Ethernet device; the kernel path needs a WireGuard interface",
            link.name
        )
    };
    Err(DatapathError::Unsupported(text))
}

fn now() -> Result<u64, DatapathError> {
    clock::now().map_err(|source| DatapathError::System {
        action: "reading the clock".to_owned(),
        source,
    })
}

impl Datapath for KernelDatapath {
    fn upsert(&mut self, binding: &Binding, removal: Removal) -> Result<(), DatapathError> {
        self.services
            .upsert(&mut self.maps, &self.sweeper, binding, removal)
    }

    fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError> {
        self.services.remove(&mut self.maps, &self.sweeper, key, removal)
    }

    fn set_environment(&mut self, environment: &Environment) -> Result<(), DatapathError> {
        network::sync_nets(&mut self.maps, &network::nets(environment))?;
        // Services before programs, so that a program which is attached finds them; both are tried in any case.
        let services = self.services.set_environment(&mut self.maps, environment);
        let links = self.set_links(environment);
        self.heartbeat()?;
        links.and(services)
    }

    fn tick(&mut self) -> Result<(), DatapathError> {
        self.heartbeat()?;
        self.services.tick(&mut self.maps, &self.sweeper)
    }

    fn stats(&self, key: BindingKey) -> Option<BindingStats> {
        let index = self.services.index(key)?;
        let counters = self.maps.service_counters(index).ok()?;
        Some(BindingStats {
            flows: counters.flows,
            active: self
                .sweeper
                .live()
                .by_service
                .get(&index)
                .copied()
                .unwrap_or_default(),
            packets_in: counters.packets_in,
            bytes_in: counters.bytes_in,
            packets_out: counters.packets_out,
            bytes_out: counters.bytes_out,
            failed: 0,
        })
    }
}
