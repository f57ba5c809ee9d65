//! Gathers what `explain` looks at, and cuts it into the values that are judged.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use exposer_common::flow::Bucket;
use exposer_common::names::{PROG_TUNNEL_INGRESS, PROG_WAN_INGRESS, UNREPLIED_OVERALL};
use exposer_common::service::ServiceEntry;

use super::interfaces::InterfaceFacts;
use super::packet::{Limits, Packet, Stack};
use super::pins::{self, Pins};
use super::port::PortFacts;
use crate::args::ExplainArgs;
use crate::cli::client;
use crate::cli::output::duration;
use crate::config;
use crate::datapath::BindingKey;
use crate::datapath::kernel::load::pin_dir;
use crate::net::connections;
use crate::net::firewall::{Blocker, Firewall, first_packet};
use crate::net::hooks;
use crate::net::listeners::{self, Listener};
use crate::status::Status;

/// The host, the daemon and the maps at one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub daemon: Option<Status>,
    /// Why it does not answer.
    pub daemon_error: Option<String>,
    pub pins: Option<Pins>,
    /// Why there are none.
    pub pins_error: Option<String>,
    pub interfaces: Vec<InterfaceFacts>,
    pub client: Option<IpAddr>,
    firewall: Firewall,
    listeners: Vec<Listener>,
    /// Local ports of the client's connections with this host.
    connections: Vec<BindingKey>,
}

impl Facts {
    pub(super) async fn gather(args: &ExplainArgs) -> anyhow::Result<Self> {
        let bpffs = PathBuf::from(&args.bpffs.bpffs);
        let address = config::admin_address(&args.admin.admin_addr)?;
        let (daemon, daemon_error) = match client::status(address).await {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (pins, pins_error) = match pins::read(&bpffs, args.client) {
            Ok(pins) => (Some(pins), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let interfaces = interfaces(&bpffs, daemon.as_ref(), pins.is_some()).await;
        let scanned = tokio::task::spawn_blocking(listeners::scan).await;
        let connections = args.client.map(connections::with).transpose()?;
        Ok(Self {
            daemon,
            daemon_error,
            pins,
            pins_error,
            interfaces,
            client: args.client,
            firewall: Firewall::read().await,
            listeners: scanned.ok().and_then(Result::ok).unwrap_or_default(),
            connections: connections.unwrap_or_default(),
        })
    }

    /// Notes of what could not be read.
    pub(super) fn notes(&self) -> &[String] {
        &self.firewall.notes
    }

    /// Every port that the daemon serves or was asked for, and every one in the maps.
    pub(super) fn ports(&self) -> BTreeSet<BindingKey> {
        let told = self.daemon.iter().flat_map(|status| &status.services);
        let told = told.flat_map(|service| &service.ports).map(|port| BindingKey {
            port: port.public_port.unwrap_or(port.requested),
            protocol: port.protocol,
        });
        let pinned = self.pins.iter().flat_map(|pins| pins.ports.keys().copied());
        told.chain(pinned).collect()
    }

    /// Ports of the Services that `name` names: `NAMESPACE/NAME` or `AGENT:NAMESPACE/NAME`; none if there is no such.
    pub(super) fn ports_of(&self, name: &str) -> Option<BTreeSet<BindingKey>> {
        let status = self.daemon.as_ref()?;
        let mut of_it = status
            .services
            .iter()
            .filter(|service| service.service.to_string() == name || service.service.id.to_string() == name)
            .peekable();
        of_it.peek()?;
        let ports = of_it.flat_map(|service| &service.ports).map(|port| BindingKey {
            port: port.public_port.unwrap_or(port.requested),
            protocol: port.protocol,
        });
        Some(ports.collect())
    }

    /// Age of the heartbeat in words.
    pub(super) fn heartbeat(&self) -> String {
        let Some(pins) = &self.pins else {
            return "there are no maps".to_owned();
        };
        let largest = duration(Duration::from_nanos(pins.control.max_age));
        match pins.heartbeat_age() {
            None => "frozen: the daemon has stopped new connections".to_owned(),
            Some(age) => {
                let judged = if pins.is_fresh() { "fresh" } else { "too old" };
                let age = duration(Duration::from_nanos(age));
                format!("{judged}: {age} old, at most {largest}")
            }
        }
    }

    /// What is known of a port.
    pub(super) fn port(&self, key: BindingKey) -> PortFacts {
        let told = self.daemon.iter().flat_map(|status| &status.services);
        let told = told
            .flat_map(|service| {
                service
                    .ports
                    .iter()
                    .map(|port| (service.service.to_string(), port.clone()))
            })
            .filter(|(_, port)| {
                port.protocol == key.protocol && port.public_port.unwrap_or(port.requested) == key.port
            })
            // A port that one Service has and another wanted is the former's.
            .max_by_key(|(_, port)| port.public_port.is_some());
        let datapath = self.daemon.as_ref().map(|status| &status.datapath);
        PortFacts {
            key,
            told,
            daemon: self.daemon.is_some(),
            mode: self.pins.as_ref().map(|pins| {
                let cell = pins.ports.get(&key).copied();
                cell.unwrap_or(exposer_common::service::PortMode::Unmanaged)
            }),
            service: self
                .service(key)
                .map(|(address, entry)| (IpAddr::V4(address), entry)),
            fresh: self.pins.as_ref().is_some_and(Pins::is_fresh),
            configured: datapath.map_or_else(String::new, |path| path.configured.clone()),
            why_userspace: datapath.and_then(|path| path.why_userspace.clone()),
            blocked: self.blocked(key),
            redirected: self.redirected(key),
            listener: self.listener(key),
        }
    }

    /// What the packet of the client meets on the way to a port.
    pub(super) fn packet(&self, facts: &PortFacts, client: IpAddr) -> Packet {
        let key = facts.key;
        let pins = self.pins.as_ref();
        let entry = facts.service.map(|(_, entry)| entry);
        let wan = self
            .interfaces
            .iter()
            .find(|interface| interface.program == PROG_WAN_INGRESS);
        let attached = wan.and_then(|wan| {
            let stands = wan
                .hook
                .order
                .iter()
                .any(|stander| stander.ours && stander.name == wan.program);
            (stands || wan.hook.notes.is_empty()).then_some(stands)
        });
        let egress = entry.and_then(|entry| pins?.links.get(&entry.egress_zone));
        Packet {
            client,
            net: pins.and_then(|pins| pins.client_net),
            protocol: key.protocol,
            attached,
            mode: facts.mode,
            service: entry,
            flows: pins.map_or(0, |pins| flows_of(pins, key, client)),
            sockets: self.connections.iter().filter(|held| **held == key).count(),
            handed: pins.map_or(0, |pins| handed(pins, key, client)),
            fresh: facts.fresh,
            heartbeat: self.heartbeat(),
            limits: pins.map(|pins| limits(pins, entry.as_ref())).unwrap_or_default(),
            snat_used: entry.map_or(0, |entry| pins.map_or(0, |pins| snat_used(pins, key, &entry))),
            table_used: pins.map_or(0, |pins| pins.flows.len()),
            tunnel_up: egress.is_some_and(|link| link.ifindex != 0),
            stack: Stack {
                rp_filter: wan.and_then(|wan| rp_filter(&wan.interface)),
                redirected: facts.redirected.clone(),
                blocked: facts.blocked.as_ref().map(|blocker| blocker.rule.clone()),
                listener: facts.listener.clone(),
            },
        }
    }

    fn service(&self, key: BindingKey) -> Option<(Ipv4Addr, ServiceEntry)> {
        let services = &self.pins.as_ref()?.services;
        let found = services.iter().find(|((binding, _), _)| *binding == key);
        found.map(|((_, address), entry)| (*address, *entry))
    }

    /// Public addresses, as the daemon says, else as the maps do.
    fn addresses(&self, key: BindingKey) -> Vec<IpAddr> {
        match &self.daemon {
            Some(status) => status.environment.public_addresses.clone(),
            None => self
                .service(key)
                .map(|(address, _)| IpAddr::V4(address))
                .into_iter()
                .collect(),
        }
    }

    fn blocked(&self, key: BindingKey) -> Option<Blocker> {
        let wan = self
            .interfaces
            .iter()
            .find(|interface| interface.role == "public")?;
        self.addresses(key).into_iter().find_map(|address| {
            let packet = first_packet(&wan.interface, address, key.port, key.protocol);
            self.firewall.blocks(&packet)
        })
    }

    fn redirected(&self, key: BindingKey) -> Option<String> {
        let all = self.firewall.redirected();
        let takes = |rule: &&crate::net::firewall::Redirected| {
            rule.ports.contains(key.port) && rule.protocol.is_none_or(|protocol| protocol == key.protocol)
        };
        all.iter().find(takes).map(|rule| rule.rule.clone())
    }

    fn listener(&self, key: BindingKey) -> Option<(String, bool)> {
        let addresses = self.addresses(key);
        let on_it = |listener: &&Listener| {
            listener.protocol == key.protocol
                && listener.address.port() == key.port
                && !listener.address.ip().to_canonical().is_loopback()
                && (addresses.is_empty() || addresses.iter().any(|address| listener.covers(*address)))
        };
        let found = self.listeners.iter().find(on_it)?;
        Some((found.describe(), self.is_daemon(found)))
    }

    /// Whether a listener is the daemon's. Where its owner can't be read and the daemon runs, it is taken for his.
    fn is_daemon(&self, listener: &Listener) -> bool {
        match (&listener.owner, &self.daemon) {
            (Some(owner), Some(daemon)) => u32::try_from(owner.pid) == Ok(daemon.pid),
            (Some(owner), None) => owner.name == "exposer-edge",
            (None, daemon) => daemon.is_some() && !listener.kernel,
        }
    }
}

/// The two interfaces: as the daemon names them, else as the names of the pinned links do.
async fn interfaces(bpffs: &Path, daemon: Option<&Status>, pinned: bool) -> Vec<InterfaceFacts> {
    let mut found = Vec::new();
    for (role, program) in [("public", PROG_WAN_INGRESS), ("tunnel", PROG_TUNNEL_INGRESS)] {
        let name = match daemon {
            Some(status) if role == "public" => Some(status.environment.wan.name.clone()),
            Some(status) => Some(status.environment.tunnel.name.clone()),
            None => linked(bpffs, program),
        };
        let Some(interface) = name.filter(|name| !name.is_empty()) else {
            continue;
        };
        let exists = nix::net::if_::if_nametoindex(interface.as_str()).is_ok();
        let kernel = daemon.is_none_or(|status| {
            let path = &status.datapath;
            path.configured != "userspace" && !path.attachments.is_empty()
        });
        let hook = if exists {
            hooks::ingress(&interface).await
        } else {
            hooks::Hook::default()
        };
        found.push(InterfaceFacts {
            role,
            interface,
            program,
            exists,
            expected: kernel && pinned,
            hook,
        });
    }
    found
}

/// The interface in the name of a program's pinned link.
fn linked(bpffs: &Path, program: &str) -> Option<String> {
    let entries = std::fs::read_dir(pin_dir(bpffs).join("links")).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let interface = name.strip_prefix(program)?.strip_prefix('-')?;
        Some(interface.to_owned())
    })
}

fn limits(pins: &Pins, entry: Option<&ServiceEntry>) -> Limits {
    let bucket = |index: u32| -> Bucket { pins.unreplied.get(&index).copied().unwrap_or_default() };
    Limits {
        now: pins.now,
        control: pins.control,
        source: pins.client_bucket,
        service: entry.map(|entry| bucket(entry.index)).unwrap_or_default(),
        overall: bucket(UNREPLIED_OVERALL),
    }
}

fn flows_of(pins: &Pins, key: BindingKey, client: IpAddr) -> usize {
    let of_client = |flow: &&crate::datapath::kernel::table::Flow| {
        IpAddr::V4(*flow.client.ip()) == client
            && flow.public.port() == key.port
            && flow.protocol == key.protocol.into()
    };
    pins.flows.iter().filter(of_client).count()
}

/// UDP sessions of the client that userspace serves; an entry holds for 30 s, as the programs have it.
fn handed(pins: &Pins, key: BindingKey, client: IpAddr) -> usize {
    const HOLDS: u64 = 30_000_000_000;
    pins.handed
        .iter()
        .filter(|(flow, since)| {
            IpAddr::from(flow.saddr) == client
                && u16::from_be_bytes(flow.dport) == key.port
                && pins.now.saturating_sub(*since) < HOLDS
        })
        .count()
}

fn snat_used(pins: &Pins, key: BindingKey, entry: &ServiceEntry) -> usize {
    let backend = SocketAddrV4::new(entry.backend.into(), entry.backend_port);
    let same = |flow: &&crate::datapath::kernel::table::Flow| {
        flow.backend == backend
            && flow.snat.ip().octets() == entry.snat_address
            && flow.protocol == key.protocol.into()
    };
    pins.flows.iter().filter(same).count()
}

/// The stack takes the larger of the two (Documentation/networking/ip-sysctl.rst, `rp_filter`).
fn rp_filter(interface: &str) -> Option<u32> {
    let read = |name: &str| -> Option<u32> {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    read("all").max(read(interface))
}
