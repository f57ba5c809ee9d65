//! `tunnel_ingress`: home's packets toward clients. The tunnel is a layer-3 device: packets begin with the IP header.

use aya_ebpf::bindings::{bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1};
use aya_ebpf::helpers::generated::{bpf_redirect_neigh, bpf_skb_change_head};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::{FlowEntry, FlowKey};
use exposer_common::link::LinkEntry;
use exposer_common::net::parse::{ETH_LEN, TCP_SYN};
use exposer_common::verdict::Reason;

use crate::maps::{LINKS, REPLIES};
use crate::packet::Packet;
use crate::stats::count_service;
use crate::{Outcome, flow, mss, packet, rewrite};

/// Zone of the interface that this program is attached to; set when it is loaded.
#[unsafe(no_mangle)]
static TUNNEL_ZONE: u32 = 0;

/// `AF_INET`.
const AF_INET: u32 = 2;

/// Judges a packet that came in by the tunnel.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> Outcome {
    reply(ctx).unwrap_or_else(Outcome::plain)
}

#[inline(always)]
fn reply(ctx: &TcContext) -> Result<Outcome, Reason> {
    packet::admit(ctx)?;
    let packet = packet::parse(ctx, 0)?;
    let zone = tunnel_zone();
    let key = key_of(&packet, zone);
    let entry = REPLIES.get_ptr_mut(&key).ok_or(Reason::NoReply)?;
    // From here on the packet belongs to a flow: it is redirected or dropped, never passed.
    send(ctx, &packet, entry, zone)
}

#[inline(always)]
fn tunnel_zone() -> u32 {
    // SAFETY: a static of this object; volatile, because the loader has changed it since it was compiled.
    unsafe { (&raw const TUNNEL_ZONE).read_volatile() }
}

#[inline(always)]
fn key_of(packet: &Packet, zone: u32) -> FlowKey {
    FlowKey {
        saddr: packet.ip.saddr,
        daddr: packet.ip.daddr,
        sport: packet.transport.sport,
        dport: packet.transport.dport,
        proto: packet.ip.proto as u8,
        #[expect(clippy::cast_possible_truncation, reason = "zones are below LINK_SLOTS = 16")]
        zone: zone as u8,
        pad: [0; 2],
    }
}

#[inline(always)]
fn send(ctx: &TcContext, packet: &Packet, found: *mut FlowEntry, zone: u32) -> Result<Outcome, Reason> {
    if packet.ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: from a map lookup of this run; only this direction's counters change meanwhile.
    let entry = unsafe { &*found };
    let link = LINKS.get(entry.egress_zone.into()).ok_or(Reason::WanDown)?;
    if link.ifindex == 0 {
        return Err(Reason::WanDown);
    }
    let bytes = ctx.len();
    if packet.transport.tcp_flags & TCP_SYN != 0 {
        // What the client may send has to fit the tunnel, so the tunnel's limit holds in this direction too.
        let limit = LINKS.get(zone).ok_or(Reason::TunnelDown)?.mss;
        mss::clamp(ctx, packet, limit)?;
    }
    rewrite::apply_entry(ctx, packet, entry)?;
    let (service, on_link) = (entry.service, entry.flags & FlowEntry::ON_LINK != 0);
    flow::note(found, flow::now(), packet.transport.tcp_flags, bytes);
    count_service(service, |counters| {
        counters.packets_out = counters.packets_out.wrapping_add(1);
        counters.bytes_out = counters.bytes_out.wrapping_add(bytes.into());
    });
    let redirect = by_neighbour(ctx, link, on_link)?;
    Ok(Outcome {
        reason: Reason::ReplyHit,
        redirect,
    })
}

/// Makes room for an Ethernet header and lets the kernel fill it for the next hop.
///
/// The next hop is named, because a lookup costs more than all the rest; only a client on the link itself, or a link
/// without a gateway, is looked up.
#[inline(always)]
fn by_neighbour(ctx: &TcContext, link: &LinkEntry, on_link: bool) -> Result<i32, Reason> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid; pointers into the packet are not used after this.
    let changed = unsafe { bpf_skb_change_head(skb, ETH_LEN as u32, 0) };
    if changed != 0 {
        return Err(Reason::RewriteFailed);
    }
    let redirect = if on_link || link.next_hop == [0; 4] {
        // SAFETY: no parameters: the kernel looks the destination up.
        unsafe { bpf_redirect_neigh(link.ifindex, core::ptr::null_mut(), 0, 0) }
    } else {
        let mut hop = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: [u32::from_ne_bytes(link.next_hop), 0, 0, 0],
            },
        };
        let length = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: the parameters are fully initialised, and the length is theirs.
        unsafe { bpf_redirect_neigh(link.ifindex, &mut hop, length, 0) }
    };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    Ok(redirect as i32)
}
