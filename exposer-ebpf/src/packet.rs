//! From packet bytes to facts: the only place that turns an offset into a reference.
//!
//! Lengths are judged by `skb->len`. A short linear area is no truncated packet: where the headers are not linear yet
//! (header split, VLAN untagging, TUN fragments) they are pulled, once, and looked at again.

use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowKey;
use exposer_common::net::parse::{self, IPV4_LEN, Ipv4, TCP_LEN, Transport, UDP_LEN};
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

/// `ETH_P_IP` as it stands in `skb->protocol`: network order in a 32-bit field.
const PROTOCOL_IPV4: u32 = 0x0800_u16.to_be() as u32;
/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// A packet that one of the programs may act on.
pub struct Packet {
    /// Where the IPv4 header begins: 14 behind Ethernet, 0 on a layer-3 device.
    pub l3: usize,
    /// Its IPv4 header.
    pub ip: Ipv4,
    /// TCP or UDP.
    pub proto: L4Proto,
    /// Its transport header.
    pub transport: Transport,
}

/// A pointer into the packet, or `None` beyond its linear part.
///
/// Every other place that looks into the packet calls this one.
#[inline(always)]
pub fn at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data().wrapping_add(offset);
    if start.wrapping_add(size_of::<T>()) > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// Copies a header out of the packet.
#[inline(always)]
pub fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    let header = at::<T>(ctx, offset)?;
    // SAFETY: `at` has checked the bounds; T is a byte array, so any alignment and any content will do.
    Some(unsafe { header.read() })
}

/// Whether the packet is an untagged IPv4 packet for this host.
///
/// # Errors
///
/// The reason why it is left alone.
#[inline(always)]
pub fn admit(ctx: &TcContext) -> Result<(), Reason> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid for the whole run of the program.
    let protocol = unsafe { (*skb).protocol };
    if protocol != PROTOCOL_IPV4 {
        return Err(Reason::NotIpv4);
    }
    // SAFETY: as above.
    let vlan = unsafe { (*skb).vlan_present };
    if vlan != 0 {
        return Err(Reason::Vlan);
    }
    // SAFETY: as above.
    let pkt_type = unsafe { (*skb).pkt_type };
    if pkt_type != PACKET_HOST {
        return Err(Reason::NotForHost);
    }
    Ok(())
}

/// Makes the first `want` bytes linear, as far as the packet has so many.
///
/// # Errors
///
/// [`Reason::HelperFailed`] when there is no memory.
#[inline(always)]
pub fn linearize(ctx: &TcContext, want: u32) -> Result<(), Reason> {
    let want = if ctx.len() < want { ctx.len() } else { want };
    if ctx.data().wrapping_add(want as usize) <= ctx.data_end() {
        return Ok(());
    }
    ctx.pull_data(want).map_err(|_| Reason::HelperFailed)
}

/// Reads the IPv4 header that begins at `l3` (0 or 14), and makes what may follow it linear.
///
/// # Errors
///
/// The reason why the packet is left alone.
#[inline(always)]
pub fn ipv4(ctx: &TcContext, l3: usize) -> Result<Ipv4, Reason> {
    #[expect(clippy::cast_possible_truncation, reason = "14 + 20 + 20 at most")]
    linearize(ctx, l3.wrapping_add(IPV4_LEN).wrapping_add(TCP_LEN) as u32)?;
    let header = read::<[u8; IPV4_LEN]>(ctx, l3).ok_or(Reason::Truncated)?;
    #[expect(clippy::cast_possible_truncation, reason = "0 or 14")]
    let available = ctx.len().saturating_sub(l3 as u32);
    parse::ipv4(&header, available)
}

/// Reads the transport header behind an IPv4 header that begins at `l3`.
///
/// # Errors
///
/// The reason why the packet is left alone.
#[inline(always)]
pub fn transport(ctx: &TcContext, l3: usize, ip: Ipv4, proto: L4Proto) -> Result<Packet, Reason> {
    let l4 = l3.wrapping_add(IPV4_LEN);
    let payload = ip.total_len.saturating_sub(20);
    let transport = match proto {
        L4Proto::Tcp => {
            let header = read::<[u8; TCP_LEN]>(ctx, l4).ok_or(Reason::Truncated)?;
            parse::tcp(&header, payload)?
        }
        L4Proto::Udp => {
            let header = read::<[u8; UDP_LEN]>(ctx, l4).ok_or(Reason::Truncated)?;
            parse::udp(&header, payload, ip.part)?
        }
    };
    Ok(Packet {
        l3,
        ip,
        proto,
        transport,
    })
}

impl Packet {
    /// The key under which this packet's flow stands in the table of its direction.
    #[inline(always)]
    pub fn key(&self, zone: u8) -> FlowKey {
        FlowKey {
            saddr: self.ip.saddr,
            daddr: self.ip.daddr,
            sport: self.transport.sport,
            dport: self.transport.dport,
            proto: self.proto as u8,
            zone,
            pad: [0; 2],
        }
    }
}
