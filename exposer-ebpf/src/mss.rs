//! Clamping the MSS of SYN and SYN-ACK to what the tunnel carries: the walk; the judgement is in
//! `exposer_common::net::mss`.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use exposer_common::net::mss::{Step, checksum_words, step};
use exposer_common::net::parse::{IPV4_LEN, TCP_LEN};
use exposer_common::verdict::Reason;

use crate::packet::Packet;
use crate::rewrite::checksum_place;

/// Options are at most 40 bytes (RFC 9293 §3.1), and each takes at least one.
const STEPS: u32 = 40;
/// `from` and `to` of the checksum helper are two bytes wide.
const WORD: u64 = 2;

/// The state of the walk.
struct Walk {
    skb: *mut __sk_buff,
    /// Offset of the next option in the packet.
    offset: u32,
    /// Bytes of options from there on.
    left: u32,
    /// Value of the MSS option, once it is found (then `offset` points to it).
    found: u32,
}

/// Lowers the MSS option of a SYN or SYN-ACK to `limit`; a smaller one, or none, stays.
///
/// # Errors
///
/// [`Reason::RewriteFailed`] when the option was found and could not be written.
#[inline(always)]
pub fn clamp(ctx: &TcContext, packet: &Packet, limit: u16) -> Result<(), Reason> {
    let l4 = packet.l3.wrapping_add(IPV4_LEN);
    #[expect(clippy::cast_possible_truncation, reason = "14 + 20 + 20 at most")]
    let offset = l4.wrapping_add(TCP_LEN) as u32;
    let mut walk = Walk {
        skb: ctx.skb.skb,
        offset,
        left: packet.transport.options_len.into(),
        found: 0,
    };
    // SAFETY: the callback takes this very struct, which lives on this frame until the helper returns (Linux 5.17).
    unsafe { bpf_loop(STEPS, next_option as *mut _, (&raw mut walk).cast(), 0) };
    #[expect(clippy::cast_possible_truncation, reason = "it was read from two bytes")]
    let old = walk.found as u16;
    if old <= limit {
        return Ok(());
    }
    let (check, flags) = checksum_place(packet);
    let value = walk.offset.wrapping_add(2);
    #[expect(clippy::cast_possible_truncation, reason = "0 or 14, plus 20")]
    let (from, to) = checksum_words(old, limit, value.wrapping_sub(l4 as u32));
    ctx.store(value as usize, &limit.to_be_bytes(), 0)
        .map_err(|_| Reason::RewriteFailed)?;
    ctx.l4_csum_replace(check, from.into(), to.into(), flags | WORD)
        .map_err(|_| Reason::RewriteFailed)
}

/// One step of the walk; returns 1 at its end.
extern "C" fn next_option(_index: u32, context: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `clamp` passes its own `Walk`, and nothing else refers to it while the loop runs.
    let walk = unsafe { &mut *context.cast::<Walk>() };
    if walk.left == 0 || walk.left > STEPS {
        return 1;
    }
    let mut bytes = [0_u8; 4];
    // Shorter than an MSS option: only a NOP or the end can stand here, and no more is read than is there.
    let size = if walk.left < 4 { 1 } else { 4 };
    // SAFETY: the context is valid, and the buffer holds the four bytes that are asked for at most.
    let failed = unsafe { bpf_skb_load_bytes(walk.skb.cast(), walk.offset, bytes.as_mut_ptr().cast(), size) };
    if failed != 0 {
        return 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "40 at most")]
    let left = walk.left as u8;
    match step(bytes, left) {
        Step::End => 1,
        Step::Mss(value) => {
            walk.found = value.into();
            1
        }
        Step::Skip(len) => {
            walk.offset = walk.offset.wrapping_add(len.into());
            walk.left = walk.left.wrapping_sub(len.into());
            0
        }
    }
}
