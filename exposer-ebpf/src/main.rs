//! Exposer's kernel programs: entry points, and the table that turns a reason into an action.
//!
//! Nothing is parsed and nothing is decided here. Each program yields an [`Outcome`]; its reason is counted, and the
//! reason's verdict picks the action (DESIGN §1.1):
//!
//! | verdict | action |
//! |---|---|
//! | PASS | `TC_ACT_UNSPEC` (= `TCX_NEXT`), so that whoever stands behind us still sees the packet |
//! | REDIRECT | what the redirect helper returned: `TC_ACT_REDIRECT` |
//! | DROP | `TC_ACT_SHOT` |
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the classifier macro moves the doc comments of the entry points to a private function"
)]

mod egress;
mod flow;
mod fragment;
mod guard;
mod icmp;
mod limits;
mod maps;
mod mss;
mod packet;
mod rewrite;
mod stats;
mod tunnel;
mod wan;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use exposer_common::verdict::{Reason, Verdict};

/// What a program says of a packet: why, and for REDIRECT what the helper returned.
struct Outcome {
    reason: Reason,
    redirect: i32,
}

impl Outcome {
    /// An outcome that redirects nothing.
    #[inline(always)]
    const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            redirect: TC_ACT_SHOT,
        }
    }
}

/// TC ingress of the public interface: clients' packets toward home.
#[classifier]
pub fn wan_ingress(ctx: TcContext) -> i32 {
    action(&wan::ingress(&ctx))
}

/// TC ingress of the tunnel interface (layer 3): home's packets toward clients.
#[classifier]
pub fn tunnel_ingress(ctx: TcContext) -> i32 {
    action(&tunnel::ingress(&ctx))
}

#[inline(always)]
fn action(outcome: &Outcome) -> i32 {
    stats::count_reason(outcome.reason);
    match outcome.reason.verdict() {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Redirect => outcome.redirect,
        Verdict::Drop => TC_ACT_SHOT,
    }
}

/// `bpf_skc_lookup_tcp` and others are for GPL-compatible programs only.
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
