//! The maps. Their names, sizes and contents are documented in `exposer_common::names`; `bpftool map dump pinned`
//! prints them with named fields, because each is defined with BTF.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use exposer_common::flow::{Bucket, Control, FlowEntry, FlowKey, FragmentKey, FragmentPorts, SourceKey};
use exposer_common::link::{LINK_SLOTS, LinkEntry, NetKind};
use exposer_common::names::{
    FLOW_SLOTS, FRAGMENT_SLOTS, HANDED_SLOTS, NET_SLOTS, SERVICE_SLOTS, SOURCE_SLOTS,
};
use exposer_common::service::{PORT_SLOTS, PortMode, ServiceCounters, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;

/// What to do with each destination port.
#[btf_map]
pub static PORTS: Array<PortMode, { PORT_SLOTS as usize }> = Array::new();

/// Where new flows of a public port go.
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceEntry, { SERVICE_SLOTS as usize }> = HashMap::new();

/// Client to home.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, FlowEntry, { FLOW_SLOTS as usize }> = HashMap::new();

/// Home to client.
#[btf_map]
pub static REPLIES: HashMap<FlowKey, FlowEntry, { FLOW_SLOTS as usize }> = HashMap::new();

/// UDP clients that the userspace path serves, with the time of the last word about them.
#[btf_map]
pub static HANDED: LruHashMap<FlowKey, u64, { HANDED_SLOTS as usize }> = LruHashMap::new();

/// The ports of fragmented datagrams.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { FRAGMENT_SLOTS as usize }> = LruHashMap::new();

/// ICMP errors that this CPU may still send.
#[btf_map]
pub static ICMP_BUDGET: PerCpuArray<Bucket, 1> = PerCpuArray::new();

/// Flows that may yet be made without an answer: by service, and one cell for all.
#[btf_map]
pub static UNREPLIED: Array<Bucket, { SERVICE_SLOTS as usize + 1 }> = Array::new();

/// Flows that a client may yet make.
#[btf_map]
pub static SOURCES: LruHashMap<SourceKey, Bucket, { SOURCE_SLOTS as usize }> = LruHashMap::new();

/// Interfaces by zone.
#[btf_map]
pub static LINKS: Array<LinkEntry, { LINK_SLOTS as usize }> = Array::new();

/// What the longest matching prefix says about an address.
#[btf_map]
pub static NETS: LpmTrie<[u8; 4], NetKind, { NET_SLOTS as usize }> = LpmTrie::new();

/// The daemon's word.
#[btf_map]
pub static CONTROL: Array<Control, 1> = Array::new();

/// Packets by reason.
#[btf_map]
pub static REASONS: PerCpuArray<u64, { Reason::SLOTS as usize }> = PerCpuArray::new();

/// Counters by service.
#[btf_map]
pub static SERVICE_STATS: PerCpuArray<ServiceCounters, { SERVICE_SLOTS as usize }> = PerCpuArray::new();
