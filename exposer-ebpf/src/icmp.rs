//! ICMP errors: those that concern a flow are found by what they quote (`exposer_common::net::icmp`), and those that
//! a router owes are made.

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, bpf_adj_room_mode};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::{FlowKey, ICMP_RATE};
use exposer_common::net::checksum::{fold32, fold64};
use exposer_common::net::icmp::{self, Answer, ICMP_LEN, Message, QUOTE_LEN, Quote};
use exposer_common::net::parse::{ETH_LEN, IPV4_LEN};
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::maps::ICMP_BUDGET;
use crate::packet;

/// Bytes of IPv4 and ICMP header that an answer puts before its quote.
const ADDED: i32 = 28;
const _: () = assert!(ADDED.unsigned_abs() as usize == IPV4_LEN + ICMP_LEN);
/// Bytes of a quoted TCP header: as far as the checksum and two more, for the checksum may yet be finished.
const TCP_QUOTE: usize = 20;
/// Bytes of a quoted UDP header.
const UDP_QUOTE: usize = 8;

/// What an ICMP error is about.
pub struct About {
    /// The tuple of the quoted packet, turned round: the key of the flow's entry in the direction that the error came
    /// in by.
    pub key: FlowKey,
    /// Whether the quoted packet is UDP.
    pub is_udp: bool,
    /// Whether the error claims an absurd path MTU.
    pub absurd: bool,
}

/// Reads the ICMP message behind an IPv4 header at `l3`.
///
/// # Errors
///
/// [`Reason::IcmpOther`] where it is no error about TCP or UDP.
#[inline(always)]
pub fn about(ctx: &TcContext, l3: usize, zone: u8) -> Result<About, Reason> {
    let header = l3.wrapping_add(IPV4_LEN);
    let inner = header.wrapping_add(ICMP_LEN);
    #[expect(clippy::cast_possible_truncation, reason = "14 + 20 + 8 + 28 at most")]
    packet::linearize(ctx, inner.wrapping_add(QUOTE_LEN) as u32)?;
    let message = icmp::message(&packet::read::<[u8; ICMP_LEN]>(ctx, header).ok_or(Reason::IcmpOther)?);
    if matches!(message, Message::Other) {
        return Err(Reason::IcmpOther);
    }
    let bytes = packet::read::<[u8; QUOTE_LEN]>(ctx, inner).ok_or(Reason::IcmpOther)?;
    let Quote {
        saddr,
        daddr,
        sport,
        dport,
        proto,
    } = icmp::quote(&bytes).ok_or(Reason::IcmpOther)?;
    let proto = L4Proto::from_number(proto).ok_or(Reason::IcmpOther)?;
    Ok(About {
        key: FlowKey {
            saddr: daddr,
            daddr: saddr,
            sport: dport,
            dport: sport,
            proto: proto as u8,
            zone,
            pad: [0; 2],
        },
        is_udp: matches!(proto, L4Proto::Udp),
        absurd: matches!(message, Message::AbsurdMtu),
    })
}

/// Whether another ICMP error may be sent now (RFC 1812 §4.3.2.8).
#[inline(always)]
fn within_budget(now: u64) -> bool {
    let Some(budget) = ICMP_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the cell is this CPU's own; the reference ends with this call.
    unsafe { &mut *budget }.take(ICMP_RATE, now)
}

/// Turns a packet that came in by an Ethernet interface, and is as its sender sent it, into an ICMP error to its
/// sender, and sends it back by the same interface. Yields the action.
///
/// # Errors
///
/// [`Reason::IcmpLimited`] when too many were sent of late, [`Reason::RewriteFailed`] when the kernel has no room for
/// it; the packet must be dropped in both cases.
#[inline(always)]
pub fn answer(ctx: &TcContext, proto: L4Proto, what: Answer, now: u64) -> Result<i32, Reason> {
    if !within_budget(now) {
        return Err(Reason::IcmpLimited);
    }
    match proto {
        L4Proto::Tcp => make::<TCP_QUOTE>(ctx, what, 16)?,
        L4Proto::Udp => make::<UDP_QUOTE>(ctx, what, 6)?,
    }
    // SAFETY: the context is valid; the helper has no preconditions.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: as above.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    Ok(action as i32)
}

/// The answer as it stands in the packet, quoting `Q` bytes of transport header.
#[repr(C)]
struct Made<const Q: usize> {
    to: [u8; 6],
    from: [u8; 6],
    ether_type: [u8; 2],
    ip: [u8; IPV4_LEN],
    icmp: [u8; ICMP_LEN],
    quoted_ip: [u8; IPV4_LEN],
    quoted: [u8; Q],
}

#[inline(always)]
fn make<const Q: usize>(ctx: &TcContext, what: Answer, check_at: usize) -> Result<(), Reason> {
    let skb = ctx.skb.skb;
    let kept = ETH_LEN.wrapping_add(IPV4_LEN).wrapping_add(Q);
    // Cuts the packet down to what is quoted, and takes segmentation off it.
    #[expect(clippy::cast_possible_truncation, reason = "14 + 20 + 20 at most")]
    // SAFETY: the context is valid; pointers into the packet are not used after this.
    let cut = unsafe { bpf_skb_change_tail(skb, kept as u32, 0) };
    if cut != 0 {
        return Err(Reason::RewriteFailed);
    }
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);
    // SAFETY: as above.
    let grown = unsafe { bpf_skb_adjust_room(skb, ADDED, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, flags) };
    if grown != 0 {
        return Err(Reason::RewriteFailed);
    }
    let made = packet::at::<Made<Q>>(ctx, 0).ok_or(Reason::RewriteFailed)?;
    // SAFETY: `at` has checked the bounds, nothing else refers to the packet, and the struct is made of byte arrays.
    fill(unsafe { &mut *made }, what, check_at);
    Ok(())
}

#[inline(always)]
fn fill<const Q: usize>(made: &mut Made<Q>, what: Answer, check_at: usize) {
    core::mem::swap(&mut made.to, &mut made.from);
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = made.quoted_ip;
    #[expect(clippy::cast_possible_truncation, reason = "28 + 20 + 20 at most")]
    let total = size_of::<Made<Q>>().wrapping_sub(ETH_LEN) as u16;
    let [t0, t1] = total.to_be_bytes();
    // TTL 64, ICMP, from the address that was spoken to.
    made.ip = [
        0x45, 0, t0, t1, 0, 0, 0, 0, 64, 1, 0, 0, d0, d1, d2, d3, s0, s1, s2, s3,
    ];
    let [c0, c1] = checksum(sum(&made.ip));
    let [_, _, _, _, _, _, _, _, _, _, at0, at1, ..] = &mut made.ip;
    (*at0, *at1) = (c0, c1);

    set(&mut made.quoted, check_at, [0, 0]);
    let quoted = sum(&made.quoted);
    let field = icmp::quoted_checksum(quoted);
    set(&mut made.quoted, check_at, field);
    made.icmp = what.header();
    let whole = sum(&made.icmp)
        .wrapping_add(sum(&made.quoted_ip))
        .wrapping_add(quoted)
        .wrapping_add(u16::from_ne_bytes(field).into());
    let [_, _, c0, c1, ..] = &mut made.icmp;
    [*c0, *c1] = checksum(whole);
}

/// Writes two bytes at a constant, even offset.
#[inline(always)]
fn set<const Q: usize>(bytes: &mut [u8; Q], at: usize, value: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at.wrapping_add(2)) {
        place.copy_from_slice(&value);
    }
}

/// The sum of the 16-bit words of an even number of bytes.
#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N]) -> u64 {
    let mut sum = 0_u64;
    for pair in bytes.as_chunks::<2>().0 {
        sum = sum.wrapping_add(u16::from_ne_bytes(*pair).into());
    }
    sum
}

#[inline(always)]
fn checksum(sum: u64) -> [u8; 2] {
    (!fold32(fold64(sum))).to_ne_bytes()
}
