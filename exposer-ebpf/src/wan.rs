//! `wan_ingress`: clients' packets toward home.

use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowKey;
use exposer_common::net::parse::{ETH_LEN, TCP_SYN};
use exposer_common::service::PortMode;
use exposer_common::verdict::Reason;

use crate::maps::{LINKS, PORTS};
use crate::packet::Packet;
use crate::stats::{count_reason, count_service};
use crate::{Outcome, flow, mss, packet, rewrite};

/// Zone of the interface that this program is attached to; set when it is loaded.
#[unsafe(no_mangle)]
static WAN_ZONE: u32 = 0;

/// Judges a packet that came in by the public interface.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> Outcome {
    forward(ctx).unwrap_or_else(Outcome::plain)
}

#[inline(always)]
fn forward(ctx: &TcContext) -> Result<Outcome, Reason> {
    packet::admit(ctx)?;
    let packet = packet::parse(ctx, ETH_LEN)?;
    let port = u16::from_be_bytes(packet.transport.dport);
    match PORTS.get(packet.ip.proto.port_slot(port)) {
        Some(PortMode::Masquerade) => {}
        Some(PortMode::Userspace) => return Err(Reason::ServiceUserspace),
        _ => return Err(Reason::Unmanaged),
    }
    let key = key_of(&packet);
    let now = flow::now();
    let found = flow::find_or_make(ctx, &packet, &key, now)?;
    // From here on the packet belongs to a flow: it is redirected or dropped, never passed.
    send(ctx, &packet, &found, now)
}

#[inline(always)]
fn key_of(packet: &Packet) -> FlowKey {
    // SAFETY: a static of this object; volatile, because the loader has changed it since it was compiled.
    let zone = unsafe { (&raw const WAN_ZONE).read_volatile() };
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
fn send(ctx: &TcContext, packet: &Packet, found: &flow::Found, now: u64) -> Result<Outcome, Reason> {
    if packet.ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // SAFETY: from a map lookup of this run; only this direction's counters change meanwhile.
    let entry = unsafe { &*found.entry };
    let link = LINKS.get(entry.egress_zone.into()).ok_or(Reason::TunnelDown)?;
    if link.ifindex == 0 {
        return Err(Reason::TunnelDown);
    }
    let bytes = ctx.len().wrapping_sub(ETH_LEN as u32);
    // SAFETY: the context is valid for the whole run of the program.
    let gso = unsafe { (*ctx.skb.skb).gso_size } != 0;
    if u32::from(packet.ip.total_len) > link.mtu && packet.ip.dont_fragment && !gso {
        count_reason(Reason::Oversized);
    }
    if packet.transport.tcp_flags & TCP_SYN != 0 {
        mss::clamp(ctx, packet, link.mss)?;
    }
    rewrite::apply_entry(ctx, packet, entry)?;
    let service = entry.service;
    flow::note(found.entry, now, packet.transport.tcp_flags, bytes);
    count_service(service, |counters| {
        counters.packets_in = counters.packets_in.wrapping_add(1);
        counters.bytes_in = counters.bytes_in.wrapping_add(bytes.into());
    });
    // SAFETY: the helper has no preconditions.
    let redirect = unsafe { bpf_redirect(link.ifindex, 0) };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    let redirect = redirect as i32;
    Ok(Outcome {
        reason: found.reason,
        redirect,
    })
}
