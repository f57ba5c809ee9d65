//! Map structs of the kernel path's flow table.
//!
//! A masquerade flow is two entries of the same type: one in `FLOWS`, found by what the client sends, and one in
//! `REPLIES`, found by what the backend answers. Each holds the *complete* rewrite of its direction, checksum
//! differences included, so that a packet needs one lookup. Each direction writes only its own entry, without
//! atomics: [`FlowEntry::seen`], [`FlowEntry::tcp_flags`], [`FlowEntry::packets`] and [`FlowEntry::bytes`].
//!
//! Key (16 bytes), the kernel's element header (48) and entry (64) fill exactly two cache lines; 48 and 80 bytes of
//! entry were measured and are slower.

/// Key of `FLOWS`, `REPLIES` and `HANDED`: a tuple as it stands in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address.
    pub saddr: [u8; 4],
    /// Destination address.
    pub daddr: [u8; 4],
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// Zone that the packet came in by.
    pub zone: u8,
    /// Always zero.
    pub pad: [u8; 2],
}

/// Value of `FLOWS` and `REPLIES`: the rewrite of one direction, and what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// New source address.
    pub saddr: [u8; 4],
    /// New destination address.
    pub daddr: [u8; 4],
    /// New source port, network order.
    pub sport: [u8; 2],
    /// New destination port, network order.
    pub dport: [u8; 2],
    /// One's complement difference of the addresses: for the IPv4 and the transport checksum.
    pub addr_diff: u32,
    /// One's complement difference of the ports: for the transport checksum.
    pub port_diff: u32,
    /// The service's index.
    pub service: u32,
    /// The service's generation when the flow was made.
    pub generation: u32,
    /// Zone that the packet leaves by: an index of `LINKS`.
    pub egress_zone: u8,
    /// OR of the TCP flags that this direction has sent (RFC 9293 §3.1, low eight bits).
    pub tcp_flags: u8,
    /// See [`FlowEntry::ON_LINK`].
    pub flags: u8,
    /// Always zero.
    pub pad: u8,
    /// When this direction last sent, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub seen: u64,
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction, layer 3.
    pub bytes: u64,
    /// When the flow was made, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub created: u64,
}

impl FlowEntry {
    /// Flag: the new destination is on the egress link itself, so its neighbour is looked up, not the gateway's.
    pub const ON_LINK: u8 = 1;
}

/// The daemon's word to the programs: the single cell of the map `CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Control {
    /// When the daemon last wrote, `CLOCK_MONOTONIC_COARSE` in nanoseconds; 0 = frozen, no new flows.
    pub heartbeat: u64,
    /// Age of the heartbeat, in nanoseconds, beyond which no new flow is made.
    pub max_age: u64,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 16);
    assert!(size_of::<FlowEntry>() == 64);
    assert!(core::mem::offset_of!(FlowEntry, addr_diff) == 12);
    assert!(core::mem::offset_of!(FlowEntry, seen) == 32);
    assert!(core::mem::offset_of!(FlowEntry, created) == 56);
    assert!(size_of::<Control>() == 16);
};
