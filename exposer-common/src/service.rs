//! Map structs that the edge writes and the programs read: the port table and the services.

/// What the programs do with a destination port, one byte for each protocol and port in the map `PORTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortMode {
    /// Not ours: the packet leaves at once. Zero, so that a zeroed map means nothing is ours.
    Unmanaged = 0,
    /// Flow table first, then `SERVICES`.
    Masquerade = 1,
    /// Static rewrite that keeps the client's address (reserved; DESIGN §5a).
    Transparent = 2,
    /// Served by the userspace path alone.
    Userspace = 3,
}

/// Transport protocol, numbered as IANA does.
///
/// The map structs store it as this enum, which `bpftool` prints by name. Only the edge writes it, so the programs
/// never see another discriminant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum L4Proto {
    /// Transmission Control Protocol (RFC 9293).
    Tcp = 6,
    /// User Datagram Protocol (RFC 768).
    Udp = 17,
}

/// Entries of the map `PORTS`: 65,536 for TCP, then as many for UDP.
pub const PORT_SLOTS: u32 = 2 * 65_536;

impl L4Proto {
    /// The index of `port` (host order) in the map `PORTS`.
    #[must_use]
    pub const fn port_slot(self, port: u16) -> u32 {
        match self {
            Self::Tcp => port as u32,
            Self::Udp => 65_536 | port as u32,
        }
    }

    /// The protocol with this IANA number, if it is one of ours.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Lower-case name: `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Key of the map `SERVICES`: one public address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct ServiceKey {
    /// Destination address of the client's packets: an address of the public interface.
    pub address: [u8; 4],
    /// Destination port, host order.
    pub port: u16,
    /// Transport protocol.
    pub proto: L4Proto,
    /// Always zero.
    pub pad: u8,
}

/// Value of the map `SERVICES`: where new flows of a public port go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ServiceEntry {
    /// Destination that replaces the public address.
    pub backend: [u8; 4],
    /// Port that replaces the public port, host order.
    pub backend_port: u16,
    /// How the packets are carried.
    pub mode: PortMode,
    /// Zone whose link leads to the backend: an index of `LINKS`.
    pub egress_zone: u8,
    /// Source address that replaces the client's.
    pub snat_address: [u8; 4],
    /// First source port of the range, host order.
    pub snat_first: u16,
    /// Number of ports in the range, at least 1.
    pub snat_count: u16,
    /// Stable index of the service: of its counters in `SERVICE_STATS`.
    pub index: u32,
    /// Raised when the service is removed or its target changes; flows remember theirs.
    pub generation: u32,
}

/// Value of the per-CPU map `SERVICE_STATS`, at a service's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ServiceCounters {
    /// Flows made by the kernel path.
    pub flows: u64,
    /// Packets from clients toward home.
    pub packets_in: u64,
    /// Bytes from clients toward home, layer 3.
    pub bytes_in: u64,
    /// Packets from home toward clients.
    pub packets_out: u64,
    /// Bytes from home toward clients, layer 3.
    pub bytes_out: u64,
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 8);
    assert!(size_of::<ServiceEntry>() == 24);
    assert!(core::mem::offset_of!(ServiceEntry, snat_address) == 8);
    assert!(core::mem::offset_of!(ServiceEntry, index) == 16);
    assert!(size_of::<ServiceCounters>() == 40);
};
