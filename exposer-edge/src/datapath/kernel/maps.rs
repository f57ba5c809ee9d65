//! Typed handles of the maps, from a loaded object or from their pins.

use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use exposer_common::flow::{Bucket, Control, FlowEntry, FlowKey, SourceKey};
use exposer_common::link::{LinkEntry, NetKind};
use exposer_common::names::{
    MAP_CONTROL, MAP_FLOWS, MAP_HANDED, MAP_LINKS, MAP_NETS, MAP_PORTS, MAP_REASONS, MAP_REPLIES,
    MAP_SERVICE_STATS, MAP_SERVICES, MAP_SOURCES, MAP_UNREPLIED,
};
use exposer_common::service::{PortMode, ServiceCounters, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;

use super::error::bpf;
use super::load::pin_dir;
use crate::datapath::DatapathError;

/// `FLOWS` and `REPLIES`.
#[derive(Debug)]
pub struct FlowMaps {
    /// Client to home.
    pub flows: HashMap<MapData, FlowKey, FlowEntry>,
    /// Home to client.
    pub replies: HashMap<MapData, FlowKey, FlowEntry>,
}

/// What the edge writes, and the counters.
pub struct ConfigMaps {
    /// What to do with each destination port.
    pub ports: Array<MapData, PortMode>,
    /// Where new flows go.
    pub services: HashMap<MapData, ServiceKey, ServiceEntry>,
    /// UDP clients that userspace serves.
    pub handed: HashMap<MapData, FlowKey, u64>,
    /// Interfaces by zone.
    pub links: Array<MapData, LinkEntry>,
    /// What prefixes say about addresses.
    pub nets: LpmTrie<MapData, [u8; 4], NetKind>,
    /// The daemon's word.
    pub control: Array<MapData, Control>,
    /// Packets by reason.
    pub reasons: PerCpuArray<MapData, u64>,
    /// Counters by service.
    pub service_stats: PerCpuArray<MapData, ServiceCounters>,
}

/// The buckets of the limits, which the programs alone write.
pub struct LimitMaps {
    /// By service index, and at [`exposer_common::names::UNREPLIED_OVERALL`].
    pub unreplied: Array<MapData, Bucket>,
    /// By client.
    pub sources: HashMap<MapData, SourceKey, Bucket>,
}

impl LimitMaps {
    /// Opens the pinned maps; works without a daemon.
    ///
    /// # Errors
    ///
    /// When the maps are not pinned, or not readable.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, DatapathError> {
        let mut source = Pins(bpffs);
        Ok(Self {
            unreplied: typed(&mut source, MAP_UNREPLIED)?,
            sources: typed(&mut source, MAP_SOURCES)?,
        })
    }
}

/// Whence a map comes.
trait Source {
    fn map(&mut self, name: &str) -> Result<Map, DatapathError>;
}

impl Source for Ebpf {
    fn map(&mut self, name: &str) -> Result<Map, DatapathError> {
        self.take_map(name)
            .ok_or_else(|| DatapathError::Bpf(format!("the eBPF object has no map {name}")))
    }
}

/// Pins below a bpffs folder.
struct Pins<'a>(&'a Path);

impl Source for Pins<'_> {
    fn map(&mut self, name: &str) -> Result<Map, DatapathError> {
        let path = pin_dir(self.0).join(name);
        let action = format!(
            "opening the pinned map {} (does the kernel path run?)",
            path.display()
        );
        let data = MapData::from_pin(&path).map_err(bpf(&action))?;
        Map::from_map_data(data).map_err(bpf(&action))
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(
    source: &mut impl Source,
    name: &str,
) -> Result<T, DatapathError> {
    T::try_from(source.map(name)?).map_err(bpf(&format!(
        "the map {name} has another shape than this version's"
    )))
}

impl FlowMaps {
    fn take(source: &mut impl Source) -> Result<Self, DatapathError> {
        Ok(Self {
            flows: typed(source, MAP_FLOWS)?,
            replies: typed(source, MAP_REPLIES)?,
        })
    }

    /// Opens the pinned flow table; works without a daemon.
    ///
    /// # Errors
    ///
    /// When the maps are not pinned, or not readable.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, DatapathError> {
        Self::take(&mut Pins(bpffs))
    }

    /// Takes the flow table out of a loaded object.
    ///
    /// # Errors
    ///
    /// When the object lacks a map.
    pub fn from_object(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Self::take(ebpf)
    }
}

impl ConfigMaps {
    fn take(source: &mut impl Source) -> Result<Self, DatapathError> {
        Ok(Self {
            ports: typed(source, MAP_PORTS)?,
            services: typed(source, MAP_SERVICES)?,
            handed: typed(source, MAP_HANDED)?,
            links: typed(source, MAP_LINKS)?,
            nets: typed(source, MAP_NETS)?,
            control: typed(source, MAP_CONTROL)?,
            reasons: typed(source, MAP_REASONS)?,
            service_stats: typed(source, MAP_SERVICE_STATS)?,
        })
    }

    /// Opens the pinned maps; works without a daemon.
    ///
    /// # Errors
    ///
    /// When the maps are not pinned, or not readable.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, DatapathError> {
        Self::take(&mut Pins(bpffs))
    }

    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    ///
    /// When the object lacks a map.
    pub fn from_object(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Self::take(ebpf)
    }

    /// Packets by reason, summed over CPUs; reasons that were never given are left out.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn reason_counts(&self) -> Result<Vec<(Reason, u64)>, DatapathError> {
        let mut counts = Vec::new();
        for reason in Reason::ALL {
            let cells = self
                .reasons
                .get(&reason.index(), 0)
                .map_err(bpf("reading the map REASONS"))?;
            let sum = cells.iter().fold(0_u64, |sum, cell| sum.wrapping_add(*cell));
            if sum > 0 {
                counts.push((*reason, sum));
            }
        }
        Ok(counts)
    }

    /// Counters of a service, summed over CPUs.
    ///
    /// # Errors
    ///
    /// When the map can't be read, or has no such index.
    pub fn service_counters(&self, index: u32) -> Result<ServiceCounters, DatapathError> {
        let cells = self
            .service_stats
            .get(&index, 0)
            .map_err(bpf("reading the map SERVICE_STATS"))?;
        Ok(cells.iter().fold(ServiceCounters::default(), |sum, cell| {
            let ServiceCounters {
                flows,
                packets_in,
                bytes_in,
                packets_out,
                bytes_out,
            } = *cell;
            ServiceCounters {
                flows: sum.flows.wrapping_add(flows),
                packets_in: sum.packets_in.wrapping_add(packets_in),
                bytes_in: sum.bytes_in.wrapping_add(bytes_in),
                packets_out: sum.packets_out.wrapping_add(packets_out),
                bytes_out: sum.bytes_out.wrapping_add(bytes_out),
            }
        }))
    }

    /// Sets the counters of a service to zero: its index has a new owner.
    ///
    /// # Errors
    ///
    /// When the map can't be written.
    pub fn clear_counters(&mut self, index: u32) -> Result<(), DatapathError> {
        let cpus = aya::util::nr_cpus().map_err(|(file, source)| DatapathError::System {
            action: format!("reading {file}"),
            source,
        })?;
        let cells =
            aya::maps::PerCpuValues::try_from(vec![ServiceCounters::default(); cpus]).map_err(|source| {
                DatapathError::System {
                    action: "clearing counters".to_owned(),
                    source,
                }
            })?;
        self.service_stats
            .set(index, cells, 0)
            .map_err(bpf("writing the map SERVICE_STATS"))
    }
}
