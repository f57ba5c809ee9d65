//! What the benchmark and its kernel programs share: the recipe of the generator's packets.

/// Consecutive packets are this many flows apart, so that tables are not walked in the order in which they were filled.
/// It has no factor in common with a power of ten, so every flow gets its turn.
pub const STRIDE: u32 = 61_803;
/// Client addresses in use.
pub const CLIENTS: u32 = 4_096;
/// First client address, host order: 44.160.0.0.
pub const FIRST_CLIENT: u32 = 0x2ca0_0000;
/// First client port.
pub const FIRST_SPORT: u32 = 2_000;
/// Public ports in use: as many services, each with a backend of its own.
pub const SERVICES: u32 = 16;
/// Bytes of a frame.
pub const FRAME: usize = 64;

/// The generator's recipe, and what it has made: the single cell of the map `FEED`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Feed {
    /// The frame without what differs from flow to flow, as little-endian words.
    pub words: [u64; 8],
    /// Frames made.
    pub made: u64,
    /// The task that generates: who else empties the far end does so in time that is not measured.
    pub task: u64,
    /// Flows to walk through, at least 1.
    pub flows: u32,
    /// Flow of the next frame.
    pub next: u32,
    /// One's complement sum of the IPv4 header without source and checksum.
    pub ip_sum: u32,
    /// The same of the transport checksum's input, without source address and ports.
    pub l4_sum: u32,
    /// First public port, host order.
    pub first_port: u32,
    /// 1 for TCP, 0 for UDP: where the checksum stands.
    pub tcp: u32,
}

/// Packets that reached the far end: the single cell of the per-CPU map `SUNK`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Sunk {
    /// Taken off in the generator's own time.
    pub inside: u64,
    /// Taken off by somebody else (ksoftirqd), beside the measured time.
    pub outside: u64,
}
