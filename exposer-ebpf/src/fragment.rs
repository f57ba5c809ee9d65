//! Fragments of one datagram go the same way (RFC 791 §3.2): the first one has the ports, and leaves them here for the
//! later ones. A later fragment that comes before its first is left to the stack, which holds it until it gives up;
//! the sender then sends the datagram again, or not, as with any lost fragment.

use exposer_common::flow::{FlowKey, FragmentKey, FragmentPorts};
use exposer_common::net::parse::Ipv4;
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::maps::FRAGMENTS;
use crate::packet::Packet;

#[inline(always)]
fn key(ip: &Ipv4, proto: L4Proto, zone: u8) -> FragmentKey {
    FragmentKey {
        saddr: ip.saddr,
        daddr: ip.daddr,
        id: ip.id,
        proto: proto as u8,
        zone,
    }
}

/// Leaves the ports of a first fragment, which belongs to a flow, for the later ones.
#[inline(always)]
pub fn remember(packet: &Packet, zone: u8, now: u64) {
    let ports = FragmentPorts {
        seen: now,
        sport: packet.transport.sport,
        dport: packet.transport.dport,
        pad: [0; 4],
    };
    // An LRU table takes it; were it to fail, the later fragments go to the stack.
    let _ = FRAGMENTS.insert(key(&packet.ip, packet.proto, zone), ports, 0);
}

/// The flow key of a later fragment.
///
/// # Errors
///
/// [`Reason::Fragment`] where its first has not been seen, or not been translated.
#[inline(always)]
pub fn recall(ip: &Ipv4, proto: L4Proto, zone: u8, now: u64) -> Result<FlowKey, Reason> {
    // SAFETY: copied at once; a slot reused meanwhile gives another datagram's ports, and a lookup that misses.
    let ports = *unsafe { FRAGMENTS.get(key(ip, proto, zone)) }.ok_or(Reason::Fragment)?;
    if now.saturating_sub(ports.seen) > FragmentPorts::LIFETIME {
        return Err(Reason::Fragment);
    }
    Ok(FlowKey {
        saddr: ip.saddr,
        daddr: ip.daddr,
        sport: ports.sport,
        dport: ports.dport,
        proto: proto as u8,
        zone,
        pad: [0; 2],
    })
}
