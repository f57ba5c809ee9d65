//! Applying a flow entry to a packet.
//!
//! The transport checksum goes through `bpf_l4_csum_replace`, in two calls (see `exposer_common::net::checksum` for
//! why); the IPv4 header's checksum is never left to hardware at this hook and is corrected inline.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowEntry;
use exposer_common::net::checksum::{address_difference, apply, fold64, word_difference};
use exposer_common::net::icmp::ICMP_LEN;
use exposer_common::net::parse::IPV4_LEN;
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::packet::{self, Packet};

/// Offset of the checksum in a TCP header.
const TCP_CHECK: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECK: usize = 6;

/// Offset of the checksum in an ICMP header.
const ICMP_CHECK: usize = 2;

/// IPv4 header without options and the ports behind it: all that a rewrite touches but the transport checksum.
#[repr(C)]
struct Headers {
    ip: [u8; IPV4_LEN],
    sport: [u8; 2],
    dport: [u8; 2],
}

/// An ICMP error and the quote that every one has.
#[repr(C)]
pub struct ErrorHeaders {
    outer: [u8; IPV4_LEN],
    icmp: [u8; ICMP_LEN],
    inner: [u8; IPV4_LEN],
    inner_sport: [u8; 2],
    inner_dport: [u8; 2],
    /// TCP: the sequence number. UDP: length and checksum.
    inner_rest: [u8; 4],
}

/// Where the transport checksum stands, and the flags with which it is replaced.
#[inline(always)]
pub const fn checksum_place(packet: &Packet) -> (usize, u64) {
    let l4 = packet.l3.wrapping_add(IPV4_LEN);
    match packet.proto {
        L4Proto::Tcp => (l4.wrapping_add(TCP_CHECK), 0),
        L4Proto::Udp => (l4.wrapping_add(UDP_CHECK), BPF_F_MARK_MANGLED_0 as u64),
    }
}

/// Writes the entry's addresses into a later fragment, one hop less to live, and the IPv4 checksum. It has no ports, and
/// the datagram's checksum stands in the first fragment.
///
/// # Errors
///
/// [`Reason::RewriteFailed`].
#[inline(always)]
pub fn apply_addresses(ctx: &TcContext, l3: usize, entry: &FlowEntry) -> Result<(), Reason> {
    let header = packet::at::<[u8; IPV4_LEN]>(ctx, l3).ok_or(Reason::RewriteFailed)?;
    // SAFETY: `at` has checked the bounds, nothing else refers to the packet, and a byte array has no alignment.
    let header = unsafe { &mut *header };
    set_addresses(header, entry.saddr, entry.daddr, entry.addr_diff);
    Ok(())
}

/// Writes addresses, whose difference to the old ones is `addr_diff`, one hop less to live, and the checksum.
#[inline(always)]
fn set_addresses(header: &mut [u8; IPV4_LEN], saddr: [u8; 4], daddr: [u8; 4], addr_diff: u32) {
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        ttl,
        proto,
        c0,
        c1,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = header;
    let hop = ttl.wrapping_sub(1);
    [*c0, *c1] = apply(
        [*c0, *c1],
        addr_diff,
        word_difference([*ttl, *proto], [hop, *proto]),
    );
    *ttl = hop;
    [*s0, *s1, *s2, *s3] = saddr;
    [*d0, *d1, *d2, *d3] = daddr;
}

/// Writes the entry's addresses and ports, one hop less to live, and both checksums.
///
/// # Errors
///
/// [`Reason::RewriteFailed`]; the packet is then half written and must be dropped.
#[inline(always)]
pub fn apply_entry(ctx: &TcContext, packet: &Packet, entry: &FlowEntry) -> Result<(), Reason> {
    let (check, flags) = checksum_place(packet);
    let pseudo = flags | BPF_F_PSEUDO_HDR as u64;
    ctx.l4_csum_replace(check, 0, entry.addr_diff.into(), pseudo)
        .map_err(|_| Reason::RewriteFailed)?;
    ctx.l4_csum_replace(check, 0, entry.port_diff.into(), flags)
        .map_err(|_| Reason::RewriteFailed)?;
    let headers = packet::at::<Headers>(ctx, packet.l3).ok_or(Reason::RewriteFailed)?;
    // SAFETY: `at` has checked the bounds, nothing else refers to the packet, and the struct is made of byte arrays.
    let Headers { ip, sport, dport } = unsafe { &mut *headers };
    set_addresses(ip, entry.saddr, entry.daddr, entry.addr_diff);
    *sport = entry.sport;
    *dport = entry.dport;
    Ok(())
}

/// Rewrites an ICMP error about a packet of the flow: outside it goes the way of `entry`; the packet that it quotes
/// becomes the one that the far end had sent. The sums are explained in `exposer_common::net::icmp`.
///
/// # Errors
///
/// [`Reason::RewriteFailed`]; the packet is then half written and must be dropped.
#[inline(always)]
pub fn apply_to_error(ctx: &TcContext, l3: usize, entry: &FlowEntry, is_udp: bool) -> Result<(), Reason> {
    let headers = packet::at::<ErrorHeaders>(ctx, l3).ok_or(Reason::RewriteFailed)?;
    // SAFETY: as in apply_entry.
    let ErrorHeaders {
        outer,
        icmp: _,
        inner,
        inner_sport,
        inner_dport,
        inner_rest,
    } = unsafe { &mut *headers };
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *outer;
    let outer_diff = address_difference([[s0, s1, s2, s3], [d0, d1, d2, d3]], [entry.saddr, entry.daddr]);
    set_addresses(outer, entry.saddr, entry.daddr, outer_diff);

    let [
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        c0,
        c1,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = inner;
    [*c0, *c1] = apply([*c0, *c1], entry.addr_diff, 0);
    [*s0, *s1, *s2, *s3] = entry.daddr;
    [*d0, *d1, *d2, *d3] = entry.saddr;
    *inner_sport = entry.dport;
    *inner_dport = entry.sport;
    let mut sum = u64::from(entry.port_diff);
    let [_, _, u0, u1] = inner_rest;
    let old = [*u0, *u1];
    if is_udp && old != [0, 0] {
        let new = apply(old, entry.addr_diff, entry.port_diff);
        [*u0, *u1] = new;
        sum = sum.wrapping_add(word_difference(old, new).into());
    }
    let check = l3.wrapping_add(IPV4_LEN).wrapping_add(ICMP_CHECK);
    ctx.l4_csum_replace(check, 0, fold64(sum).into(), 0)
        .map_err(|_| Reason::RewriteFailed)
}
