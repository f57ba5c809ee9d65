//! Exposer's programs with their maps, and the flows that exist before anything is measured.

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::programs::SchedClassifier;
use exposer_common::flow::Control;
use exposer_common::link::{LinkEntry, NetKind};
use exposer_common::names::PROG_WAN_INGRESS;
use exposer_common::service::{L4Proto, PortMode, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::maps::ConfigMaps;
use exposer_edge::datapath::kernel::{clock, load, object};
use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Handle;

use crate::Case;
use crate::generator::feed::SERVICES;
use crate::generator::{BATCH, Generator};
use crate::lanes::{HOME, HOME_PORT, Kind, Lane, Lanes, PUBLIC};
use crate::recipe::{ACK, SERVED, SYN, recipe};

const WAN_ZONE: u8 = 1;
const TUNNEL_ZONE: u8 = 2;

/// The programs that are installed, as the daemon would load and fill them.
pub struct Edge {
    ebpf: Ebpf,
    maps: ConfigMaps,
    _bpffs: Bpffs,
}

/// The backend of a service.
pub fn backend(index: u32) -> [u8; 4] {
    (u32::from_be_bytes(HOME) + index).to_be_bytes()
}

impl Edge {
    /// Loads programs and maps, for the two interfaces with these indices.
    pub fn load(wan: u32, tun: u32) -> Result<Self> {
        let bpffs = Bpffs::new("bench")?;
        let object = object::object().context(object::MISSING)?;
        let mut ebpf = load::load(object, &bpffs.path().join("exposer"), WAN_ZONE, TUNNEL_ZONE)?;
        let maps = ConfigMaps::from_object(&mut ebpf)?;
        let mut this = Self {
            ebpf,
            maps,
            _bpffs: bpffs,
        };
        this.network(wan, tun)?;
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            for index in 0..SERVICES {
                this.serve(proto, index)?;
            }
        }
        Ok(this)
    }

    fn network(&mut self, wan: u32, tun: u32) -> Result<()> {
        for (zone, ifindex) in [(WAN_ZONE, wan), (TUNNEL_ZONE, tun)] {
            let link = LinkEntry {
                ifindex,
                mtu: 1420,
                mss: 1380,
                ..LinkEntry::default()
            };
            self.maps.links.set(zone.into(), link, 0)?;
        }
        for (address, length, kind) in [(PUBLIC, 32, NetKind::Own), ([10, 96, 0, 0], 16, NetKind::Home)] {
            self.maps.nets.insert(&Key::new(length, address), kind, 0)?;
        }
        // No daemon runs that would repeat it. A rate of zero is no limit: the flows are all made at once.
        let control = Control {
            heartbeat: clock::now()?,
            max_age: u64::MAX,
            ..Control::default()
        };
        Ok(self.maps.control.set(0, control, 0)?)
    }

    fn serve(&mut self, proto: L4Proto, index: u32) -> Result<()> {
        let port = SERVED + u16::try_from(index)?;
        let key = ServiceKey {
            address: PUBLIC,
            port,
            proto,
            pad: 0,
        };
        let entry = ServiceEntry {
            backend: backend(index),
            backend_port: HOME_PORT,
            mode: PortMode::Masquerade,
            egress_zone: TUNNEL_ZONE,
            snat_address: [10, 0, 0, 1],
            snat_first: 1_024,
            snat_count: 28_976,
            index,
            generation: 1,
        };
        self.maps.services.insert(key, entry, 0)?;
        Ok(self
            .maps
            .ports
            .set(proto.port_slot(port), PortMode::Masquerade, 0)?)
    }

    /// The program of the public interface.
    pub fn program(&mut self) -> Result<&mut SchedClassifier> {
        Ok(load::program(&mut self.ebpf, PROG_WAN_INGRESS)?)
    }

    /// How often a reason was given.
    pub fn count(&self, reason: Reason) -> Result<u64> {
        let counts = self.maps.reason_counts()?;
        Ok(counts
            .iter()
            .find(|(is, _)| *is == reason)
            .map_or(0, |(_, count)| *count))
    }
}

/// Makes a case's flows where there is state to be made, and checks that they are there.
pub fn fill(lanes: &mut Lanes, generator: &mut Generator, case: Case) -> Result<()> {
    let known = lanes.edge.count(Reason::ForwardNew)?;
    let of_other_proto = if case.proto == L4Proto::Tcp {
        u64::from(crate::FLOWS[2])
    } else {
        0
    };
    for lane in &lanes.all {
        match lane.kind {
            Kind::Ours => send(lane, generator, case, SYN)?,
            // conntrack picks connections up in the middle (nf_conntrack_tcp_loose, as it is set by default).
            Kind::Nftables => {
                send(lane, generator, case, ACK)?;
                let entries = conntrack_entries(&lane.edge)?;
                ensure!(
                    entries >= of_other_proto + u64::from(case.flows),
                    "conntrack holds {entries} entries; is nf_conntrack_max too small?"
                );
            }
            Kind::Floor | Kind::Bare | Kind::Forwarding | Kind::Unmanaged => {}
        }
    }
    let now = lanes.edge.count(Reason::ForwardNew)?;
    ensure!(
        now >= of_other_proto + u64::from(case.flows) && now >= known,
        "Exposer made {now} flows of {}",
        case.flows
    );
    Ok(())
}

fn send(lane: &Lane, generator: &mut Generator, case: Case, flags: u8) -> Result<()> {
    let feed = recipe(lane.kind, case.proto, flags, case.flows);
    let packets = case.flows.next_multiple_of(BATCH);
    // Of several first packets of one TCP flow in one batch, conntrack drops all but one: the second pass counts.
    generator.run(&lane.edge, lane.wan, feed, packets)?;
    let sample = generator.run(&lane.edge, lane.wan, feed, packets)?;
    ensure!(
        sample.arrived * 100 >= sample.made * 99,
        "{}: of {} packets {} arrived",
        lane.kind.name(),
        sample.made,
        sample.arrived
    );
    Ok(())
}

fn conntrack_entries(edge: &Handle) -> Result<u64> {
    let text = edge.run(|| {
        Ok(std::fs::read_to_string(
            "/proc/sys/net/netfilter/nf_conntrack_count",
        )?)
    })?;
    Ok(text.trim().parse()?)
}
