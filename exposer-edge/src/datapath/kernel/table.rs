//! The flow table as people and the sweep see it: forward and reply entry brought together.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;

use aya::maps::{HashMap, IterableMap, MapData, MapError};
use exposer_common::flow::{FlowEntry, FlowKey};
use exposer_common::net::nat::opposite_key;
use exposer_common::net::state::{State, idle, state_of};
use exposer_common::service::L4Proto;

use super::batch;
use super::error::bpf;
use super::maps::FlowMaps;
use crate::datapath::DatapathError;

/// One flow of the kernel path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: L4Proto,
    /// The client.
    pub client: SocketAddrV4,
    /// What the client speaks to.
    pub public: SocketAddrV4,
    /// What the backend sees as the client.
    pub snat: SocketAddrV4,
    /// Where the packets go.
    pub backend: SocketAddrV4,
    /// State by both entries.
    pub state: State,
    /// The binding's index.
    pub service: u32,
    /// The binding's generation when the flow was made.
    pub generation: u32,
    /// Nanoseconds since the flow was made.
    pub age: u64,
    /// Nanoseconds since either direction was seen.
    pub idle: u64,
    /// Packets from the client.
    pub packets_in: u64,
    /// Bytes from the client, layer 3.
    pub bytes_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// Bytes to the client, layer 3.
    pub bytes_out: u64,
}

/// A reply entry as it counts when there is none.
fn absent(forward: &FlowEntry) -> FlowEntry {
    FlowEntry {
        tcp_flags: 0,
        packets: 0,
        bytes: 0,
        seen: 0,
        ..*forward
    }
}

fn socket(address: [u8; 4], port: [u8; 2]) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address), u16::from_be_bytes(port))
}

impl Flow {
    /// Brings the two entries of a flow together; a missing reply entry counts as one that saw nothing.
    #[must_use]
    pub fn new(key: &FlowKey, forward: &FlowEntry, reply: Option<&FlowEntry>, now: u64) -> Option<Self> {
        let protocol = L4Proto::from_number(key.proto)?;
        let missing = absent(forward);
        let reply = reply.unwrap_or(&missing);
        Some(Self {
            protocol,
            client: socket(key.saddr, key.sport),
            public: socket(key.daddr, key.dport),
            snat: socket(forward.saddr, forward.sport),
            backend: socket(forward.daddr, forward.dport),
            state: state_of(protocol, forward, reply),
            service: forward.service,
            generation: forward.generation,
            age: now.saturating_sub(forward.created),
            idle: idle(forward, reply, now),
            packets_in: forward.packets,
            bytes_in: forward.bytes,
            packets_out: reply.packets,
            bytes_out: reply.bytes,
        })
    }
}

/// Looks a key up; a missing one is no error.
///
/// # Errors
///
/// What the system said.
pub fn get(
    map: &HashMap<MapData, FlowKey, FlowEntry>,
    key: &FlowKey,
) -> Result<Option<FlowEntry>, DatapathError> {
    match map.get(key, 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(bpf("reading the flow table")(error)),
    }
}

/// Deletes a key; a missing one is no error.
///
/// # Errors
///
/// What the system said.
pub fn delete(map: &mut HashMap<MapData, FlowKey, FlowEntry>, key: &FlowKey) -> Result<(), DatapathError> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if super::error::os_error(&error) == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(bpf("deleting from the flow table")(error)),
    }
}

/// Every entry of a flow map at about this moment.
///
/// # Errors
///
/// What the system said.
pub fn entries(
    map: &HashMap<MapData, FlowKey, FlowEntry>,
) -> Result<Vec<(FlowKey, FlowEntry)>, DatapathError> {
    let mut all = Vec::new();
    batch::for_each(map.map().fd().as_fd(), |key: &FlowKey, entry: &FlowEntry| {
        all.push((*key, *entry));
    })
    .map_err(|source| DatapathError::System {
        action: "reading the flow table".to_owned(),
        source,
    })?;
    Ok(all)
}

/// Every flow at about this moment. `now` is [`super::clock::now`].
///
/// # Errors
///
/// What the system said.
pub fn flows(maps: &FlowMaps, now: u64) -> Result<Vec<Flow>, DatapathError> {
    let mut all = Vec::new();
    for (key, forward) in entries(&maps.flows)? {
        let reply = get(&maps.replies, &opposite_key(&forward, key.proto))?;
        all.extend(Flow::new(&key, &forward, reply.as_ref(), now));
    }
    Ok(all)
}
