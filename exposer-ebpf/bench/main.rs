//! Kernel programs of `cargo xtask bench kernel`; no part of what is installed.
//!
//! | program | at | does |
//! |---|---|---|
//! | `generate` | `BPF_PROG_TEST_RUN` with live frames | writes every byte of a frame, and lets it into the stack |
//! | `floor` | TC ingress | drops: what generator and stack cost before any forwarding |
//! | `bare` | TC ingress | `bpf_redirect`, nothing else: the limit |
//! | `sink` | native XDP at the far end | counts and drops |
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the program macros move the doc comments of the entry points to a private function"
)]

mod feed;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_redirect};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use feed::{CLIENTS, FIRST_CLIENT, FIRST_SPORT, FRAME, Feed, SERVICES, STRIDE, Sunk};

/// What to generate.
#[btf_map]
static FEED: Array<Feed, 1> = Array::new();

/// What arrived.
#[btf_map]
static SUNK: PerCpuArray<Sunk, 1> = PerCpuArray::new();

/// Index of the interface that `bare` redirects to; set when it is loaded.
#[unsafe(no_mangle)]
static OUT: u32 = 0;

/// Writes the next frame. The kernel hands out frames again with whatever was last written to them, so nothing of what
/// is there is kept.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    write(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

#[inline(always)]
fn write(ctx: &XdpContext) -> Option<()> {
    let frame = ctx.data() as *mut u64;
    if ctx.data().wrapping_add(FRAME) > ctx.data_end() {
        return None;
    }
    let feed = FEED.get_ptr_mut(0)?;
    // SAFETY: the pointer came from a map lookup of this run, and only one generator runs at a time.
    let feed = unsafe { &mut *feed };
    let flow = feed.next;
    feed.next = flow.wrapping_add(STRIDE).checked_rem(feed.flows)?;
    feed.made = feed.made.wrapping_add(1);
    // SAFETY: the helper takes nothing and has no preconditions.
    feed.task = unsafe { bpf_get_current_task() };

    let client = FIRST_CLIENT.wrapping_add(flow % CLIENTS);
    let sport = FIRST_SPORT.wrapping_add(flow / SERVICES);
    let dport = feed.first_port.wrapping_add(flow % SERVICES);
    let address = (client >> 16).wrapping_add(client & 0xffff);
    let ip_check = folded(feed.ip_sum.wrapping_add(address));
    let ports = sport.wrapping_add(dport);
    let l4_check = folded(feed.l4_sum.wrapping_add(address).wrapping_add(ports));

    let mut words = feed.words;
    words[3] |= ip_check | (u64::from(client.swap_bytes()) << 16);
    words[4] |= (swapped(sport) << 16) | (swapped(dport) << 32);
    if feed.tcp == 1 {
        words[6] |= l4_check << 16;
    } else {
        words[5] |= l4_check;
    }
    // SAFETY: 64 bytes were checked above; the kernel's frames begin at a multiple of eight (page plus headroom).
    unsafe { frame.cast::<[u64; 8]>().write(words) };
    Some(())
}

/// The complement of a one's complement sum, in the order of the wire, in the low bits.
#[inline(always)]
fn folded(sum: u32) -> u64 {
    let once = (sum >> 16).wrapping_add(sum & 0xffff);
    let twice = (once >> 16).wrapping_add(once & 0xffff);
    swapped(!twice)
}

/// A number below 65,536 in the order of the wire.
#[inline(always)]
fn swapped(value: u32) -> u64 {
    u64::from((value & 0xffff).swap_bytes() >> 16)
}

/// Drops what the generator lets in.
#[classifier]
pub fn floor(_ctx: TcContext) -> i32 {
    count();
    TC_ACT_SHOT
}

/// Redirects what the generator lets in.
#[classifier]
pub fn bare(_ctx: TcContext) -> i32 {
    // SAFETY: a static of this object; volatile, because the loader has changed it since it was compiled.
    let out = unsafe { (&raw const OUT).read_volatile() };
    // SAFETY: the helper has no preconditions.
    let action = unsafe { bpf_redirect(out, 0) };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    {
        action as i32
    }
}

/// The far end.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    count();
    xdp_action::XDP_DROP
}

#[inline(always)]
fn count() {
    let (Some(feed), Some(sunk)) = (FEED.get(0), SUNK.get_ptr_mut(0)) else {
        return;
    };
    // SAFETY: this CPU's cell, and programs at these hooks don't interrupt each other.
    let sunk = unsafe { &mut *sunk };
    // SAFETY: the helper takes nothing and has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    if feed.task == task {
        sunk.inside = sunk.inside.wrapping_add(1);
    } else {
        sunk.outside = sunk.outside.wrapping_add(1);
    }
}

/// `bpf_get_current_task` is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no code path panics (the lints deny all that could), so the linker drops this function; were one to
    // appear, the verifier would refuse the program for reaching it.
    unsafe { core::hint::unreachable_unchecked() }
}
