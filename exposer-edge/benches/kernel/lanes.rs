//! The contenders, each in namespaces of its own.

use anyhow::{Context as _, Result};
use aya::programs::tc::TcAttachType;
use aya::programs::{SchedClassifier, Xdp, XdpMode};
use exposer_testkit::netns::{Handle, Netns};
use exposer_testkit::tools;

use crate::filling::{self, Edge};
use crate::generator::Generator;
use crate::generator::feed::SERVICES;
use crate::recipe::SERVED;

/// Address of the public interface.
pub const PUBLIC: [u8; 4] = [44, 128, 0, 2];
/// First backend; each service has one of its own.
pub const HOME: [u8; 4] = [10, 96, 0, 10];
/// The backends' port.
pub const HOME_PORT: u16 = 9_000;
/// Hardware address of the public interface.
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Dropped at TC ingress: what the generator costs.
    Floor,
    /// `bpf_redirect` and nothing else.
    Bare,
    /// `wan_ingress`.
    Ours,
    /// The kernel's routing, no NAT.
    Forwarding,
    /// The same behind `wan_ingress`, with ports that are not ours.
    Unmanaged,
    /// nftables: DNAT and masquerade.
    Nftables,
}

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Floor,
        Self::Bare,
        Self::Ours,
        Self::Forwarding,
        Self::Unmanaged,
        Self::Nftables,
    ];

    /// Name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "generator alone (drop at TC ingress)",
            Self::Bare => "bare bpf_redirect",
            Self::Ours => "Exposer",
            Self::Forwarding => "plain IP forwarding",
            Self::Unmanaged => "plain IP forwarding behind Exposer (port not managed)",
            Self::Nftables => "nftables DNAT + masquerade",
        }
    }

    const fn role(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Bare => "bare",
            Self::Ours => "ours",
            Self::Forwarding => "route",
            Self::Unmanaged => "other",
            Self::Nftables => "nft",
        }
    }
}

/// A contender's place.
pub struct Lane {
    /// Whose it is.
    pub kind: Kind,
    /// Namespace of the contender.
    pub edge: Netns,
    /// Index of its public interface.
    pub wan: u32,
    /// Index of its tunnel.
    pub tun: u32,
    configuration: String,
    far: Netns,
}

/// All contenders.
pub struct Lanes {
    /// In the order of [`Kind::ALL`].
    pub all: Vec<Lane>,
    /// Exposer's programs and maps.
    pub edge: Edge,
}

impl Lanes {
    /// Makes all namespaces, loads the generator, and attaches and configures the contenders.
    pub fn set_up() -> Result<(Self, Generator)> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            all.push(lane(kind).with_context(|| format!("setting up {}", kind.name()))?);
        }
        let mut generator = Generator::load(all[Kind::Bare as usize].tun)?;
        generator.check()?;
        let ours = &all[Kind::Ours as usize];
        let mut edge = Edge::load(ours.wan, ours.tun)?;
        for lane in &mut all {
            lane.configuration = configure(lane, &mut generator, &mut edge)
                .with_context(|| format!("configuring {}", lane.kind.name()))?;
        }
        Ok((Self { all, edge }, generator))
    }

    /// What was configured for whom.
    pub fn configurations(&self) -> Vec<(Kind, String)> {
        self.all
            .iter()
            .map(|lane| (lane.kind, lane.configuration.clone()))
            .collect()
    }
}

/// Two namespaces and two veth pairs between them; nothing but our own packets on them.
fn lane(kind: Kind) -> Result<Lane> {
    let edge = Netns::new("bench", kind.role())?;
    let far = Netns::new("bench", "far")?;
    for side in [&edge, &far] {
        side.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        side.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    }
    edge.connect("wan", &far, "client")?;
    edge.connect("tun", &far, "home")?;
    edge.ip("link set wan address 02:00:00:00:00:02")?;
    edge.ip("addr add 44.128.0.2/24 dev wan")?;
    edge.ip("addr add 10.0.0.1/24 dev tun")?;
    edge.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:03 dev tun nud permanent")?;
    edge.ip("route add 10.96.0.0/16 via 10.0.0.2 dev tun")?;
    edge.ip("route add default via 44.128.0.1 dev wan")?;
    let (wan, tun) = edge.run(|| {
        let index = |name: &str| nix::net::if_::if_nametoindex(name).context("an interface is gone");
        Ok((index("wan")?, index("tun")?))
    })?;
    Ok(Lane {
        kind,
        edge,
        wan,
        tun,
        configuration: String::new(),
        far,
    })
}

/// What makes the lane its contender's, in words that the report prints.
fn configure(lane: &Lane, generator: &mut Generator, edge: &mut Edge) -> Result<String> {
    let sink: &mut Xdp = generator.program("sink")?;
    lane.far.run(|| {
        sink.attach("home", XdpMode::Driver)
            .context("native XDP at the far end")
    })?;
    Ok(match lane.kind {
        Kind::Floor | Kind::Bare => {
            let name = if lane.kind == Kind::Bare { "bare" } else { "floor" };
            let program: &mut SchedClassifier = generator.program(name)?;
            program.load().with_context(|| format!("loading {name}"))?;
            attach(program, &lane.edge)?;
            format!("program `{name}` at TC ingress (TCX)")
        }
        Kind::Ours => {
            attach(edge.program()?, &lane.edge)?;
            format!(
                "`wan_ingress` at TC ingress (TCX), {SERVICES} services with a backend each, flows in its maps, no \
                 limit on how many are made at once; no daemon runs"
            )
        }
        Kind::Forwarding => routing(&lane.edge)?,
        Kind::Unmanaged => {
            attach(edge.program()?, &lane.edge)?;
            format!("{}; `wan_ingress` at TC ingress (TCX)", routing(&lane.edge)?)
        }
        Kind::Nftables => nftables(&lane.edge)?,
    })
}

fn attach(program: &mut SchedClassifier, edge: &Handle) -> Result<()> {
    edge.run(|| {
        program
            .attach("wan", TcAttachType::Ingress)
            .context("attaching to TC ingress")?;
        Ok(())
    })
}

/// A router as Linux is, with no firewall and so without conntrack.
fn routing(edge: &Handle) -> Result<String> {
    let settings = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.wan.rp_filter", "0"),
    ];
    apply(edge, &settings)
}

/// DNAT by a map, masquerade, and conntrack as kind as it can be set: checksums unchecked, as behind a network card that
/// checks them, and no timeout within the benchmark.
fn nftables(edge: &Handle) -> Result<String> {
    let routing = routing(edge)?;
    let settings = apply(
        edge,
        &[
            ("net.netfilter.nf_conntrack_checksum", "0"),
            // There are no replies whose window it could know.
            ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
            ("net.netfilter.nf_conntrack_udp_timeout", "3600"),
            ("net.netfilter.nf_conntrack_udp_timeout_stream", "3600"),
            ("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", "3600"),
            ("net.netfilter.nf_conntrack_tcp_timeout_max_retrans", "3600"),
        ],
    )?;
    let map: Vec<_> = (0..SERVICES)
        .map(|index| {
            let [a, b, c, d] = filling::backend(index);
            format!("{} : {a}.{b}.{c}.{d} . {HOME_PORT}", u32::from(SERVED) + index)
        })
        .collect();
    let map = map.join(", ");
    let rules = format!(
        "table ip exposer_bench {{
  chain in {{ type nat hook prerouting priority dstnat;
    iifname \"wan\" dnat to udp dport map {{ {map} }}
    iifname \"wan\" dnat to tcp dport map {{ {map} }}
  }}
  chain out {{ type nat hook postrouting priority srcnat; oifname \"tun\" masquerade; }}
}}
"
    );
    tools::run(edge.command("nft")?.arg(&rules))?;
    Ok(format!("{routing}; {settings}; nft:\n{rules}"))
}

fn apply(edge: &Handle, settings: &[(&str, &str)]) -> Result<String> {
    let mut texts = Vec::new();
    for (key, value) in settings {
        edge.sysctl(key, value)?;
        texts.push(format!("{key}={value}"));
    }
    Ok(texts.join(" "))
}
