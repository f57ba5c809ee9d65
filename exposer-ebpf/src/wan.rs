//! `wan_ingress`: clients' packets toward home.

use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowEntry;
use exposer_common::link::LinkEntry;
use exposer_common::net::icmp::Answer;
use exposer_common::net::parse::{ETH_LEN, ETH_LEN_U32, Ipv4, Part, TCP_SYN, Upper};
use exposer_common::service::{L4Proto, PortMode};
use exposer_common::verdict::Reason;

use crate::maps::{FLOWS, PORTS};
use crate::packet::Packet;
use crate::stats::{count_reason, count_service};
use crate::{Outcome, egress, flow, fragment, icmp, mss, packet, rewrite};

/// Zone of the interface that this program is attached to; set when it is loaded.
#[unsafe(no_mangle)]
static WAN_ZONE: u32 = 0;

/// Judges a packet that came in by the public interface.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> Outcome {
    forward(ctx).unwrap_or_else(Outcome::plain)
}

#[inline(always)]
fn zone() -> u8 {
    // SAFETY: a static of this object; volatile, because the loader has changed it since it was compiled.
    let zone = unsafe { (&raw const WAN_ZONE).read_volatile() };
    #[expect(clippy::cast_possible_truncation, reason = "zones are below LINK_SLOTS = 16")]
    {
        zone as u8
    }
}

#[inline(always)]
fn forward(ctx: &TcContext) -> Result<Outcome, Reason> {
    packet::admit(ctx)?;
    let ip = packet::ipv4(ctx, ETH_LEN)?;
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
    let packet = packet::transport(ctx, ETH_LEN, ip, proto)?;
    let port = u16::from_be_bytes(packet.transport.dport);
    match PORTS.get(proto.port_slot(port)) {
        Some(PortMode::Masquerade) => {}
        Some(PortMode::Userspace) => return Err(Reason::ServiceUserspace),
        _ => return Err(Reason::Unmanaged),
    }
    let zone = zone();
    let key = packet.key(zone);
    let now = flow::now();
    let found = flow::find_or_make(ctx, &packet, &key, now)?;
    // From here on the packet belongs to a flow: it is redirected or dropped, never passed.
    if matches!(packet.ip.part, Part::First) {
        fragment::remember(&packet, zone, now);
    }
    send(ctx, &packet, &found, now)
}

#[inline(always)]
fn send(ctx: &TcContext, packet: &Packet, found: &flow::Found, now: u64) -> Result<Outcome, Reason> {
    // SAFETY: from a map lookup of this run; only this direction's counters change meanwhile.
    let entry = unsafe { &*found.entry };
    let link = egress::link(entry, Reason::TunnelDown)?;
    // The answers quote the packet, so they are made before anything is written.
    if packet.ip.ttl <= 1 {
        let redirect = icmp::answer(ctx, packet.proto, Answer::TimeExceeded, now)?;
        return Ok(Outcome {
            reason: Reason::TtlAnswered,
            redirect,
        });
    }
    let bytes = ctx.len().wrapping_sub(ETH_LEN_U32);
    if size_on_the_wire(ctx, packet) > link.mtu {
        if packet.ip.dont_fragment {
            let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
            let redirect = icmp::answer(ctx, packet.proto, Answer::TooBig(mtu), now)?;
            return Ok(Outcome {
                reason: Reason::TooBigAnswered,
                redirect,
            });
        }
        // The tunnel's own packets are fragmented then, which costs but works.
        count_reason(Reason::Oversized);
    }
    if packet.transport.tcp_flags & TCP_SYN != 0 {
        mss::clamp(ctx, packet, link.mss)?;
    }
    rewrite::apply_entry(ctx, packet, entry)?;
    let service = entry.service;
    flow::note(found.entry, now, packet.transport.tcp_flags, bytes);
    count_in(service, bytes);
    Ok(Outcome {
        reason: found.reason,
        redirect: egress::into_tunnel(link),
    })
}

/// The layer-3 length of the packet, or of the largest segment that it will be cut into.
#[inline(always)]
fn size_on_the_wire(ctx: &TcContext, packet: &Packet) -> u32 {
    // SAFETY: the context is valid for the whole run of the program.
    let segment = unsafe { (*ctx.skb.skb).gso_size };
    if segment == 0 {
        return packet.ip.total_len.into();
    }
    let headers = match packet.proto {
        L4Proto::Tcp => 40_u32.wrapping_add(packet.transport.options_len.into()),
        L4Proto::Udp => 28,
    };
    segment.wrapping_add(headers)
}

#[inline(always)]
fn count_in(service: u32, bytes: u32) {
    count_service(service, |counters| {
        counters.packets_in = counters.packets_in.wrapping_add(1);
        counters.bytes_in = counters.bytes_in.wrapping_add(bytes.into());
    });
}

/// A fragment without a transport header.
#[inline(always)]
fn later(ctx: &TcContext, ip: &Ipv4, proto: L4Proto) -> Result<Outcome, Reason> {
    let now = flow::now();
    let key = fragment::recall(ip, proto, zone(), now)?;
    let found = FLOWS.get_ptr_mut(key).ok_or(Reason::Fragment)?;
    // SAFETY: as in send.
    let entry = unsafe { &*found };
    let link = egress::link(entry, Reason::TunnelDown)?;
    if ip.ttl <= 1 {
        // Only the first fragment is answered (RFC 1122 §3.2.2).
        return Err(Reason::TtlExpired);
    }
    rewrite::apply_addresses(ctx, ETH_LEN, entry)?;
    let bytes = ctx.len().wrapping_sub(ETH_LEN_U32);
    let service = entry.service;
    flow::note(found, now, 0, bytes);
    count_in(service, bytes);
    Ok(Outcome {
        reason: Reason::FragmentForwarded,
        redirect: egress::into_tunnel(link),
    })
}

/// An ICMP error that somebody on the way to the client, or the client itself, sends about a packet of ours.
#[inline(always)]
fn error(ctx: &TcContext, ip: &Ipv4) -> Result<Outcome, Reason> {
    let about = icmp::about(ctx, ETH_LEN, zone())?;
    let found: *mut FlowEntry = FLOWS.get_ptr_mut(about.key).ok_or(Reason::IcmpOther)?;
    if about.absurd {
        return Err(Reason::IcmpAbsurd);
    }
    if ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: as in send.
    let entry = unsafe { &*found };
    let link: &LinkEntry = egress::link(entry, Reason::TunnelDown)?;
    rewrite::apply_to_error(ctx, ETH_LEN, entry, about.is_udp)?;
    Ok(Outcome {
        reason: Reason::IcmpToHome,
        redirect: egress::into_tunnel(link),
    })
}
