//! `tunnel_ingress`: home's packets toward clients. The tunnel is a layer-3 device: packets begin with the IP header.

use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowEntry;
use exposer_common::net::parse::{Ipv4, Part, TCP_SYN, Upper};
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::maps::{LINKS, REPLIES};
use crate::packet::Packet;
use crate::stats::count_service;
use crate::{Outcome, egress, flow, fragment, icmp, limits, mss, packet, rewrite};

/// Zone of the interface that this program is attached to; set when it is loaded.
#[unsafe(no_mangle)]
static TUNNEL_ZONE: u32 = 0;

/// Where the IP header begins.
const L3: usize = 0;

/// Judges a packet that came in by the tunnel.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> Outcome {
    reply(ctx).unwrap_or_else(Outcome::plain)
}

#[inline(always)]
fn zone() -> u8 {
    // SAFETY: a static of this object; volatile, because the loader has changed it since it was compiled.
    let zone = unsafe { (&raw const TUNNEL_ZONE).read_volatile() };
    #[expect(clippy::cast_possible_truncation, reason = "zones are below LINK_SLOTS = 16")]
    {
        zone as u8
    }
}

#[inline(always)]
fn reply(ctx: &TcContext) -> Result<Outcome, Reason> {
    packet::admit(ctx)?;
    let ip = packet::ipv4(ctx, L3)?;
    match (ip.upper, ip.part) {
        (Upper::Transport(proto), Part::Whole | Part::First) => first(ctx, ip, proto),
        (Upper::Transport(proto), Part::Later) => later(ctx, &ip, proto),
        (Upper::Icmp, Part::Whole) => error(ctx, &ip),
        (Upper::Icmp, _) => Err(Reason::Fragment),
    }
}

/// A packet with a transport header.
#[inline(always)]
fn first(ctx: &TcContext, ip: Ipv4, proto: L4Proto) -> Result<Outcome, Reason> {
    let packet = packet::transport(ctx, L3, ip, proto)?;
    let zone = zone();
    let found = REPLIES.get_ptr_mut(packet.key(zone)).ok_or(Reason::NoReply)?;
    let now = flow::now();
    // From here on the packet belongs to a flow: it is redirected or dropped, never passed.
    if matches!(packet.ip.part, Part::First) {
        fragment::remember(&packet, zone, now);
    }
    send(ctx, &packet, found, zone, now)
}

#[inline(always)]
fn send(
    ctx: &TcContext,
    packet: &Packet,
    found: *mut FlowEntry,
    zone: u8,
    now: u64,
) -> Result<Outcome, Reason> {
    if packet.ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: from a map lookup of this run; only this direction's counters change meanwhile.
    let entry = unsafe { &*found };
    let link = egress::link(entry, Reason::WanDown)?;
    let bytes = ctx.len();
    if packet.transport.tcp_flags & TCP_SYN != 0 {
        // What the client may send has to fit the tunnel, so the tunnel's limit holds in this direction too.
        let limit = LINKS.get(zone.into()).ok_or(Reason::TunnelDown)?.mss;
        mss::clamp(ctx, packet, limit)?;
    }
    rewrite::apply_entry(ctx, packet, entry)?;
    let (service, on_link) = (entry.service, entry.flags & FlowEntry::ON_LINK != 0);
    if entry.packets == 0 {
        limits::answered(service);
    }
    flow::note(found, now, packet.transport.tcp_flags, bytes);
    count_out(service, bytes);
    Ok(Outcome {
        reason: Reason::ReplyHit,
        redirect: egress::by_neighbour(ctx, link, on_link)?,
    })
}

#[inline(always)]
fn count_out(service: u32, bytes: u32) {
    count_service(service, |counters| {
        counters.packets_out = counters.packets_out.wrapping_add(1);
        counters.bytes_out = counters.bytes_out.wrapping_add(bytes.into());
    });
}

/// A fragment without a transport header.
#[inline(always)]
fn later(ctx: &TcContext, ip: &Ipv4, proto: L4Proto) -> Result<Outcome, Reason> {
    let now = flow::now();
    let key = fragment::recall(ip, proto, zone(), now)?;
    let found = REPLIES.get_ptr_mut(key).ok_or(Reason::Fragment)?;
    if ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: as in send.
    let entry = unsafe { &*found };
    let link = egress::link(entry, Reason::WanDown)?;
    rewrite::apply_addresses(ctx, L3, entry)?;
    let (service, on_link, bytes) = (entry.service, entry.flags & FlowEntry::ON_LINK != 0, ctx.len());
    flow::note(found, now, 0, bytes);
    count_out(service, bytes);
    Ok(Outcome {
        reason: Reason::FragmentForwarded,
        redirect: egress::by_neighbour(ctx, link, on_link)?,
    })
}

/// An ICMP error that the backend, or a router at home, sends about a packet of ours.
#[inline(always)]
fn error(ctx: &TcContext, ip: &Ipv4) -> Result<Outcome, Reason> {
    let about = icmp::about(ctx, L3, zone())?;
    let found = REPLIES.get_ptr_mut(about.key).ok_or(Reason::IcmpOther)?;
    if about.absurd {
        return Err(Reason::IcmpAbsurd);
    }
    if ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: as in send.
    let entry = unsafe { &*found };
    let link = egress::link(entry, Reason::WanDown)?;
    rewrite::apply_to_error(ctx, L3, entry, about.is_udp)?;
    let on_link = entry.flags & FlowEntry::ON_LINK != 0;
    Ok(Outcome {
        reason: Reason::IcmpToClient,
        redirect: egress::by_neighbour(ctx, link, on_link)?,
    })
}
