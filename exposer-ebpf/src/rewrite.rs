//! Applying a flow entry to a packet.
//!
//! The transport checksum goes through `bpf_l4_csum_replace`, in two calls (see `exposer_common::net::checksum` for
//! why); the IPv4 header's checksum is never left to hardware at this hook and is corrected inline.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowEntry;
use exposer_common::net::checksum::{apply, word_difference};
use exposer_common::net::parse::IPV4_LEN;
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::packet::{self, Packet};

/// Offset of the checksum in a TCP header.
const TCP_CHECK: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECK: usize = 6;

/// IPv4 header without options and the ports behind it: all that a rewrite touches but the transport checksum.
type Headers = [u8; IPV4_LEN + 4];

/// Where the transport checksum stands, and the flags with which it is replaced.
#[inline(always)]
pub const fn checksum_place(packet: &Packet) -> (usize, u64) {
    let l4 = packet.l3.wrapping_add(IPV4_LEN);
    match packet.ip.proto {
        L4Proto::Tcp => (l4.wrapping_add(TCP_CHECK), 0),
        L4Proto::Udp => (l4.wrapping_add(UDP_CHECK), BPF_F_MARK_MANGLED_0 as u64),
    }
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
    // SAFETY: `at` has checked the bounds, nothing else refers to the packet, and a byte array has no alignment.
    let headers = unsafe { &mut *headers };
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
        p0,
        p1,
        q0,
        q1,
    ] = headers;
    let hop = ttl.wrapping_sub(1);
    [*c0, *c1] = apply(
        [*c0, *c1],
        entry.addr_diff,
        word_difference([*ttl, *proto], [hop, *proto]),
    );
    *ttl = hop;
    [*s0, *s1, *s2, *s3] = entry.saddr;
    [*d0, *d1, *d2, *d3] = entry.daddr;
    [*p0, *p1] = entry.sport;
    [*q0, *q1] = entry.dport;
    Ok(())
}
