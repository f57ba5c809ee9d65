//! Names that the object file, the loader and the operator's `bpftool` agree on.

/// Version of the map layout. It is part of the pin path, so that two layouts never meet in one map.
pub const LAYOUT_VERSION: u32 = 1;

/// Where maps and links are pinned by default, below which each layout has a folder `v<LAYOUT_VERSION>`.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/exposer";

/// Program at TC ingress of the public interface.
pub const PROG_WAN_INGRESS: &str = "wan_ingress";
/// Program at TC ingress of the tunnel interface (layer 3: no Ethernet header).
pub const PROG_TUNNEL_INGRESS: &str = "tunnel_ingress";

/// Array of one byte for each protocol and port: [`crate::service::PortMode`] at [`crate::service::L4Proto::port_slot`].
pub const MAP_PORTS: &str = "PORTS";
/// Hash of [`crate::service::ServiceKey`] → [`crate::service::ServiceEntry`].
pub const MAP_SERVICES: &str = "SERVICES";
/// Hash of [`crate::flow::FlowKey`] → [`crate::flow::FlowEntry`]: client to home.
pub const MAP_FLOWS: &str = "FLOWS";
/// Hash of [`crate::flow::FlowKey`] → [`crate::flow::FlowEntry`]: home to client.
pub const MAP_REPLIES: &str = "REPLIES";
/// LRU hash of [`crate::flow::FlowKey`] → `u64` nanoseconds: UDP clients that userspace serves.
pub const MAP_HANDED: &str = "HANDED";
/// LRU hash of [`crate::flow::FragmentKey`] → [`crate::flow::FragmentPorts`]: the ports of fragmented datagrams.
pub const MAP_FRAGMENTS: &str = "FRAGMENTS";
/// Per-CPU array with the one cell [`crate::flow::Bucket`]: ICMP errors that may still be sent.
pub const MAP_ICMP_BUDGET: &str = "ICMP_BUDGET";
/// Array of [`crate::flow::Bucket`] by service index, and at [`UNREPLIED_OVERALL`]: flows that may yet be made without an
/// answer.
pub const MAP_UNREPLIED: &str = "UNREPLIED";
/// LRU hash of [`crate::flow::SourceKey`] → [`crate::flow::Bucket`]: flows that a client may yet make.
pub const MAP_SOURCES: &str = "SOURCES";
/// Array of [`crate::link::LinkEntry`] by zone.
pub const MAP_LINKS: &str = "LINKS";
/// LPM trie of IPv4 prefix → [`crate::link::NetKind`].
pub const MAP_NETS: &str = "NETS";
/// Array with the one cell [`crate::flow::Control`].
pub const MAP_CONTROL: &str = "CONTROL";
/// Per-CPU array of `u64`, by [`crate::verdict::Reason::index`].
pub const MAP_REASONS: &str = "REASONS";
/// Per-CPU array of [`crate::service::ServiceCounters`], by service index.
pub const MAP_SERVICE_STATS: &str = "SERVICE_STATS";

/// Every map of the object, in the order of the documentation.
pub const MAPS: &[&str] = &[
    MAP_PORTS,
    MAP_SERVICES,
    MAP_FLOWS,
    MAP_REPLIES,
    MAP_HANDED,
    MAP_FRAGMENTS,
    MAP_ICMP_BUDGET,
    MAP_UNREPLIED,
    MAP_SOURCES,
    MAP_LINKS,
    MAP_NETS,
    MAP_CONTROL,
    MAP_REASONS,
    MAP_SERVICE_STATS,
];

/// Load-time constant of `wan_ingress`: the zone of the public interface (`u32`).
pub const GLOBAL_WAN_ZONE: &str = "WAN_ZONE";
/// Load-time constant of `tunnel_ingress`: the zone of the tunnel interface (`u32`).
pub const GLOBAL_TUNNEL_ZONE: &str = "TUNNEL_ZONE";

/// Entries of `FLOWS` and of `REPLIES`: ¾ · 2^19, so that the 2^19 buckets stay three quarters full at most.
pub const FLOW_SLOTS: u32 = 393_216;
/// Entries of `SERVICES`, and of `SERVICE_STATS`.
pub const SERVICE_SLOTS: u32 = 16_384;
/// Entries of `HANDED`.
pub const HANDED_SLOTS: u32 = 65_536;
/// Entries of `FRAGMENTS`: datagrams whose fragments are under way at once.
pub const FRAGMENT_SLOTS: u32 = 4_096;
/// The cell of `UNREPLIED` for all services together.
pub const UNREPLIED_OVERALL: u32 = SERVICE_SLOTS;
/// Entries of `SOURCES`: client addresses that are remembered.
pub const SOURCE_SLOTS: u32 = 65_536;
/// Entries of `NETS`.
pub const NET_SLOTS: u32 = 4_096;
