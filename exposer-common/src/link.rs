//! Map structs that describe interfaces and prefixes.
//!
//! No key and no entry holds an interface index: interfaces are known by a small stable *zone* number, so that
//! `wg-quick down/up` (a new index) changes one cell of `LINKS` and nothing else.

/// Entries of the map `LINKS`, and so the largest zone number plus one. Zone 0 is never used.
pub const LINK_SLOTS: u32 = 16;

/// Value of the map `LINKS`, at a zone's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct LinkEntry {
    /// Interface index, or 0 while the interface is gone.
    pub ifindex: u32,
    /// Layer-3 MTU in bytes.
    pub mtu: u32,
    /// IPv4 next hop of the default route through this interface; all zero where there is none.
    pub next_hop: [u8; 4],
    /// Largest TCP MSS that fits the MTU of IPv4 packets (MTU − 40), host order.
    pub mss: u16,
    /// Always zero.
    pub pad: [u8; 2],
}

/// Value of the LPM map `NETS` (key: IPv4 prefix): what the longest matching prefix says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NetKind {
    /// Inside home or a tunnel route: no source on the internet may use it (DESIGN §1.6).
    Home = 1,
    /// One of the edge's own addresses.
    Own = 2,
    /// On the public link itself: reached by its own neighbour entry, not through the gateway.
    OnLink = 3,
}

const _: () = {
    assert!(size_of::<LinkEntry>() == 16);
};
