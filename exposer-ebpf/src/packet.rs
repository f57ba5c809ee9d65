//! From packet bytes to facts: the only place that turns an offset into a reference.
//!
//! Lengths are judged by `skb->len`. A short linear area is no truncated packet: where the headers are not linear yet
//! (header split, VLAN untagging, TUN fragments) they are pulled, once, and looked at again.

use aya_ebpf::programs::TcContext;
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
fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
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
#[inline(always)]
fn linearize(ctx: &TcContext, want: u32) -> Result<(), Reason> {
    let want = if ctx.len() < want { ctx.len() } else { want };
    if ctx.data().wrapping_add(want as usize) <= ctx.data_end() {
        return Ok(());
    }
    ctx.pull_data(want).map_err(|_| Reason::HelperFailed)
}

/// Reads the headers of a packet whose IPv4 header begins at `l3` (0 or 14).
///
/// # Errors
///
/// The reason why it is left alone.
#[inline(always)]
pub fn parse(ctx: &TcContext, l3: usize) -> Result<Packet, Reason> {
    let l4 = l3.wrapping_add(IPV4_LEN);
    #[expect(clippy::cast_possible_truncation, reason = "14 + 20 + 20 at most")]
    linearize(ctx, l4.wrapping_add(TCP_LEN) as u32)?;
    let header = read::<[u8; IPV4_LEN]>(ctx, l3).ok_or(Reason::Truncated)?;
    #[expect(clippy::cast_possible_truncation, reason = "0 or 14")]
    let available = ctx.len().saturating_sub(l3 as u32);
    let ip = parse::ipv4(&header, available)?;
    let payload = ip.total_len.saturating_sub(20);
    let transport = match ip.proto {
        L4Proto::Tcp => {
            let header = read::<[u8; TCP_LEN]>(ctx, l4).ok_or(Reason::Truncated)?;
            parse::tcp(&header, payload)?
        }
        L4Proto::Udp => {
            let header = read::<[u8; UDP_LEN]>(ctx, l4).ok_or(Reason::Truncated)?;
            parse::udp(&header, payload)?
        }
    };
    Ok(Packet { l3, ip, transport })
}
