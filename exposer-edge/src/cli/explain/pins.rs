//! What the pinned maps say, as plain values: works without a daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use exposer_common::flow::{Bucket, Control, FlowKey, SourceKey};
use exposer_common::link::{LINK_SLOTS, LinkEntry, NetKind};
use exposer_common::names::UNREPLIED_OVERALL;
use exposer_common::service::{L4Proto, PortMode, ServiceEntry};
use exposer_common::verdict::Reason;

use crate::datapath::BindingKey;
use crate::datapath::kernel::cells::managed_ports;
use crate::datapath::kernel::clock;
use crate::datapath::kernel::maps::{ConfigMaps, FlowMaps, LimitMaps};
use crate::datapath::kernel::table::{self, Flow};

/// The maps at about one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins {
    /// `CLOCK_MONOTONIC_COARSE` when they were read, in nanoseconds.
    pub now: u64,
    pub control: Control,
    /// Ports that are ours.
    pub ports: BTreeMap<BindingKey, PortMode>,
    pub services: BTreeMap<(BindingKey, Ipv4Addr), ServiceEntry>,
    pub links: BTreeMap<u8, LinkEntry>,
    pub flows: Vec<Flow>,
    /// UDP clients that userspace serves, and since when.
    pub handed: Vec<(FlowKey, u64)>,
    pub reasons: Vec<(Reason, u64)>,
    /// What `NETS` says of the client that was asked about.
    pub client_net: Option<NetKind>,
    /// The bucket of that client; a fresh one where he has none yet.
    pub client_bucket: Bucket,
    /// Buckets of unanswered flows by service index, and of all services.
    pub unreplied: BTreeMap<u32, Bucket>,
}

/// Reads them all.
///
/// # Errors
///
/// When they are not pinned, or not readable: the sentence for the operator.
pub(super) fn read(bpffs: &Path, client: Option<IpAddr>) -> anyhow::Result<Pins> {
    let maps = ConfigMaps::open_pinned(bpffs)?;
    let now = clock::now()?;
    let mut ports = BTreeMap::new();
    for key in managed_ports(&maps)? {
        let slot = L4Proto::from(key.protocol).port_slot(key.port);
        ports.insert(key, maps.ports.get(&slot, 0)?);
    }
    let mut services = BTreeMap::new();
    for item in maps.services.iter() {
        let (key, entry) = item?;
        let binding = BindingKey {
            port: key.port,
            protocol: key.proto.into(),
        };
        services.insert((binding, Ipv4Addr::from(key.address)), entry);
    }
    let mut links = BTreeMap::new();
    for zone in 0..LINK_SLOTS {
        if let Ok(number) = u8::try_from(zone) {
            links.insert(number, maps.links.get(&zone, 0)?);
        }
    }
    let limits = LimitMaps::open_pinned(bpffs)?;
    let mut unreplied = BTreeMap::new();
    let indexes = services.values().map(|entry: &ServiceEntry| entry.index);
    for index in indexes.chain([UNREPLIED_OVERALL]) {
        unreplied.insert(index, limits.unreplied.get(&index, 0)?);
    }
    Ok(Pins {
        now,
        control: maps.control.get(&0, 0)?,
        ports,
        services,
        links,
        flows: table::flows(&FlowMaps::open_pinned(bpffs)?, now)?,
        handed: maps.handed.iter().collect::<Result<_, _>>()?,
        reasons: maps.reason_counts()?,
        client_net: net_of(&maps, client)?,
        client_bucket: bucket_of(&limits, client)?,
        unreplied,
    })
}

/// What the longest matching prefix says, as the programs ask.
fn net_of(maps: &ConfigMaps, client: Option<IpAddr>) -> Result<Option<NetKind>, MapError> {
    let Some(IpAddr::V4(address)) = client else {
        return Ok(None);
    };
    match maps.nets.get(&Key::new(32, address.octets()), 0) {
        Ok(kind) => Ok(Some(kind)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn bucket_of(limits: &LimitMaps, client: Option<IpAddr>) -> Result<Bucket, MapError> {
    let Some(IpAddr::V4(address)) = client else {
        return Ok(Bucket::default());
    };
    let key = SourceKey {
        saddr: address.octets(),
    };
    match limits.sources.get(&key, 0) {
        Ok(bucket) => Ok(bucket),
        Err(MapError::KeyNotFound) => Ok(Bucket::default()),
        Err(error) => Err(error),
    }
}

impl Pins {
    /// Age of the daemon's heartbeat in nanoseconds; none where it is frozen or was never written.
    pub(super) const fn heartbeat_age(&self) -> Option<u64> {
        if self.control.heartbeat == 0 {
            return None;
        }
        Some(self.now.saturating_sub(self.control.heartbeat))
    }

    /// Whether the programs make new flows.
    pub(super) fn is_fresh(&self) -> bool {
        self.heartbeat_age()
            .is_some_and(|age| age <= self.control.max_age)
    }
}
