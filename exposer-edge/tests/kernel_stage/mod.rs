//! The stage of the kernel path's stories: the standard topology, with the kernel datapath in the edge's namespace and
//! nothing else, so that whatever answers is the kernel path.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use exposer_common::model::{ClientIp, Protocol, ServiceId};
use exposer_common::verdict::Reason;
use exposer_edge::config::PortRange;
use exposer_edge::datapath::kernel::maps::FlowMaps;
use exposer_edge::datapath::kernel::table::{self, Flow};
use exposer_edge::datapath::kernel::{KernelDatapath, KernelSettings, clock, object};
use exposer_edge::datapath::{Binding, BindingKey, Datapath as _, Removal, ServiceRef};
use exposer_edge::net::environment::{Environment, LinkState, Prefix};
use exposer_testkit::topology::{
    CLIENT_ON_LINK, EDGE_PUBLIC, EDGE_TUNNEL, Options, TUNNEL, TUNNEL_MTU, Topology, WAN,
};
use exposer_testkit::traffic::Client;

pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const DRAIN: Removal = Removal {
    drain: Duration::from_secs(1),
};

/// A datapath in the edge's namespace, served by whoever calls [`Stage::edge`].
pub struct Stage {
    pub topology: Topology,
    pub datapath: KernelDatapath,
}

fn prefix(address: impl Into<IpAddr>, length: u8) -> Prefix {
    Prefix {
        address: address.into(),
        length,
    }
}

pub fn environment(topology: &Topology) -> Result<Environment> {
    let index = |name: &'static str| {
        topology
            .edge
            .run(move || Ok(nix::net::if_::if_nametoindex(name)?))
    };
    Ok(Environment {
        wan: LinkState {
            name: WAN.to_owned(),
            ifindex: Some(index(WAN)?),
            mtu: 1500,
            ethernet: true,
            addresses: vec![prefix([44, 128, 0, 2], 24)],
            gateway: Some(CLIENT_ON_LINK),
        },
        tunnel: LinkState {
            name: TUNNEL.to_owned(),
            ifindex: index(TUNNEL).ok(),
            mtu: TUNNEL_MTU,
            ethernet: false,
            addresses: vec![prefix([10, 0, 0, 1], 24)],
            gateway: None,
        },
        public_addresses: vec![IpAddr::V4(EDGE_PUBLIC)],
        snat_address: Some(EDGE_TUNNEL),
        home_prefixes: vec![prefix([10, 96, 0, 0], 16), prefix([10, 0, 0, 0], 24)],
        own_addresses: vec![IpAddr::V4(EDGE_PUBLIC), IpAddr::V4(EDGE_TUNNEL)],
    })
}

pub fn open(topology: &Topology) -> Result<KernelDatapath> {
    let settings = KernelSettings {
        bpffs: topology.bpffs.path().join("exposer"),
        wan_zone: 1,
        tunnel_zone: 2,
        snat_range: PortRange::new(1024, 29_999)?,
        heartbeat_max_age: Duration::from_secs(60),
        new_flows_per_source: 500,
    };
    let environment = environment(topology)?;
    topology.edge.run(move || {
        let object = object::object().context(object::MISSING)?;
        let mut datapath = KernelDatapath::open(settings, object)?;
        datapath.set_environment(&environment)?;
        Ok(datapath)
    })
}

pub fn binding(port: u16, protocol: Protocol, generation: u32) -> Binding {
    Binding {
        key: BindingKey { port, protocol },
        service: ServiceRef {
            agent: "home".to_owned(),
            id: ServiceId {
                namespace: "default".to_owned(),
                name: "test".to_owned(),
            },
        },
        index: if protocol == Protocol::Tcp { 3 } else { 4 },
        generation,
        backend: SocketAddr::from((SERVICE, 9000)),
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

impl Stage {
    pub fn new(test: &str, options: Options) -> Result<Self> {
        let topology = Topology::new(test, options)?;
        topology.add_service_address(IpAddr::V4(SERVICE))?;
        let datapath = open(&topology)?;
        Ok(Self { topology, datapath })
    }

    /// Tells the datapath what the edge's interfaces are now, after `change`.
    pub fn renew(&mut self, change: impl FnOnce(&mut Environment)) -> Result<()> {
        let mut environment = environment(&self.topology)?;
        change(&mut environment);
        let (edge, datapath) = (self.topology.edge.handle(), &mut self.datapath);
        edge.run(move || Ok(datapath.set_environment(&environment)?))
    }

    pub fn client(&self, address: Ipv4Addr) -> Client {
        Client::new(self.topology.client.handle(), address)
    }

    pub fn flows(&self) -> Result<Vec<Flow>> {
        let maps = FlowMaps::open_pinned(&self.topology.bpffs.path().join("exposer"))?;
        Ok(table::flows(&maps, clock::now()?)?)
    }

    pub fn reason(&self, wanted: Reason) -> Result<u64> {
        let counts = self.datapath.reason_counts()?;
        Ok(counts
            .iter()
            .find(|(reason, _)| *reason == wanted)
            .map_or(0, |(_, count)| *count))
    }
}
