//! The bench of the packet tables: the loaded program, its maps, and one packet at a time.

use crate::packet::{Frame, Seen, read};
use anyhow::{Context as _, Result, ensure};
use aya::maps::lpm_trie::Key;
use aya::programs::{TestRun as _, TestRunOptions};
use exposer_common::flow::Control;
use exposer_common::link::{LinkEntry, NetKind};
use exposer_common::names::PROG_WAN_INGRESS;
use exposer_common::service::{L4Proto, PortMode, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::maps::{ConfigMaps, FlowMaps};
use exposer_edge::datapath::kernel::{clock, load, object, table};
use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Netns;

pub const PUBLIC: [u8; 4] = [44, 128, 0, 2];
pub const SNAT: [u8; 4] = [10, 0, 0, 1];
pub const BACKEND: [u8; 4] = [10, 96, 0, 10];
pub const PORT: u16 = 25_565;

/// `TC_ACT_UNSPEC`, as the program returns it.
pub const PASS: u32 = u32::MAX;
pub const DROP: u32 = 2;
pub const REDIRECT: u32 = 7;

/// The loaded program with its maps.
pub struct Bench {
    pub ebpf: aya::Ebpf,
    pub maps: ConfigMaps,
    pub flows: FlowMaps,
    pub bpffs: Bpffs,
}

/// What became of a packet.
pub struct Out {
    pub verdict: u32,
    pub reasons: Vec<Reason>,
    pub bytes: Vec<u8>,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let bpffs = Bpffs::new("ktable")?;
        let object = object::object().context(object::MISSING)?;
        let mut ebpf = load::load(object, &bpffs.path().join("exposer"), 1, 2)?;
        let (mut maps, flows) = (
            ConfigMaps::from_object(&mut ebpf)?,
            FlowMaps::from_object(&mut ebpf)?,
        );
        // Any index does: a test run yields the action without carrying it out.
        maps.links.set(
            1,
            LinkEntry {
                ifindex: 1,
                mtu: 1500,
                mss: 1460,
                ..LinkEntry::default()
            },
            0,
        )?;
        maps.links.set(
            2,
            LinkEntry {
                ifindex: 1,
                mtu: 1420,
                mss: 1380,
                ..LinkEntry::default()
            },
            0,
        )?;
        maps.control.set(
            0,
            Control {
                heartbeat: clock::now()?,
                max_age: 60_000_000_000,
                ..Control::default()
            },
            0,
        )?;
        for ([a, b, c, d], length, kind) in [
            ([44, 128, 0, 0], 24, NetKind::OnLink),
            ([44, 128, 0, 2], 32, NetKind::Own),
            ([45, 0, 0, 0], 8, NetKind::Home),
        ] {
            maps.nets.insert(&Key::new(length, [a, b, c, d]), kind, 0)?;
        }
        let mut this = Self {
            ebpf,
            maps,
            flows,
            bpffs,
        };
        this.serve(1, 1024, 28_976)?;
        Ok(this)
    }

    pub fn serve(&mut self, generation: u32, snat_first: u16, snat_count: u16) -> Result<()> {
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let entry = ServiceEntry {
                backend: BACKEND,
                backend_port: 9000,
                mode: PortMode::Masquerade,
                egress_zone: 2,
                snat_address: SNAT,
                snat_first,
                snat_count,
                index: 5,
                generation,
            };
            self.maps.services.insert(
                ServiceKey {
                    address: PUBLIC,
                    port: PORT,
                    proto,
                    pad: 0,
                },
                entry,
                0,
            )?;
            self.maps
                .ports
                .set(proto.port_slot(PORT), PortMode::Masquerade, 0)?;
        }
        Ok(())
    }

    pub fn run(&mut self, frame: &[u8]) -> Result<Out> {
        let before = self.maps.reason_counts()?;
        let mut bytes = vec![0_u8; frame.len() + 64];
        let program = load::program(&mut self.ebpf, PROG_WAN_INGRESS)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options)?;
        bytes.truncate(usize::try_from(result.data_size_out)?);
        let count = |counts: &[(Reason, u64)], reason| {
            counts.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
        };
        let after = self.maps.reason_counts()?;
        let reasons = after
            .iter()
            .filter(|(r, n)| *n > count(&before, *r))
            .map(|(r, _)| *r)
            .collect();
        Ok(Out {
            verdict: result.return_value,
            reasons,
            bytes,
        })
    }

    pub fn expect(&mut self, what: &str, frame: &[u8], verdict: u32, reason: Reason) -> Result<Out> {
        let out = self.run(frame)?;
        ensure!(
            out.verdict == verdict && out.reasons == [reason],
            "{what}: verdict {} and {:?}, wanted {verdict} and {reason:?}",
            out.verdict.cast_signed(),
            out.reasons,
        );
        if verdict == PASS {
            ensure!(out.bytes == frame, "{what}: a passed packet must be as it was");
        }
        Ok(out)
    }

    pub fn pin(&self, map: &str) -> std::path::PathBuf {
        load::pin_dir(&self.bpffs.path().join("exposer")).join(map)
    }

    pub fn flow_count(&self) -> Result<(usize, usize)> {
        Ok((
            table::entries(&self.flows.flows)?.len(),
            table::entries(&self.flows.replies)?.len(),
        ))
    }
}

/// Runs a test in a namespace of its own: socket look-ups of the program must see nothing of the host.
pub fn in_namespace(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    Netns::new("ktable", "edge")?.run(test)
}

pub fn translated(out: &Out, frame: &Frame) -> Result<Seen> {
    let seen = read(&out.bytes, 14);
    ensure!(
        seen.saddr == SNAT && seen.daddr == BACKEND && seen.dport == 9000,
        "{seen:?}"
    );
    ensure!((1024..30_000).contains(&seen.sport), "SNAT port {}", seen.sport);
    ensure!(seen.ttl == frame.ttl - 1, "one hop less to live: {seen:?}");
    ensure!(seen.ip_ok && seen.l4_ok, "checksums: {seen:?}");
    Ok(seen)
}
