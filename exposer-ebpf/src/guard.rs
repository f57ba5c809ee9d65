//! Who may make a flow: what TC bypasses is checked here, once, when the flow is made (DESIGN §1.2, §1.4, §1.6).
//!
//! A flow entry exists only for a client that passed these checks, and its key holds the client's whole tuple, so
//! packets of existing flows need not be checked again.

use aya_ebpf::bindings::{
    bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::{Control, FlowKey};
use exposer_common::link::NetKind;
use exposer_common::net::source::is_global_unicast;
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::maps::{CONTROL, HANDED, NETS};

/// `TCP_ESTABLISHED` of the kernel's `net/tcp_states.h`; a connected UDP socket has it too.
const ESTABLISHED: u32 = 1;
/// `TCP_TIME_WAIT`: the stack would take the SYN as the start of a fresh connection.
const TIME_WAIT: u32 = 6;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`: −1 in 32 bits (the helper reads it as a signed 32-bit number).
const CURRENT_NETNS: u64 = u64::MAX;
/// Bytes of the IPv4 member of `bpf_sock_tuple`.
const TUPLE_LEN: u32 = 12;
/// How long a word in `HANDED` holds, in nanoseconds; the daemon repeats it every ten seconds.
const HANDED_FOR: u64 = 30_000_000_000;

/// Whether the daemon lives: new flows need a living control plane. Yields its word.
#[inline(always)]
pub fn control_alive(now: u64) -> Result<&'static Control, Reason> {
    let Some(control) = CONTROL.get(0) else {
        return Err(Reason::ControlStale);
    };
    if control.heartbeat == 0 || now.saturating_sub(control.heartbeat) > control.max_age {
        return Err(Reason::ControlStale);
    }
    Ok(control)
}

/// Judges the source address; yields whether the client is on the public link itself.
#[inline(always)]
pub fn source(saddr: [u8; 4]) -> Result<bool, Reason> {
    if !is_global_unicast(saddr) {
        return Err(Reason::SourceMartian);
    }
    match NETS.get(&Key::new(32, saddr)) {
        Some(NetKind::Home | NetKind::Own) => Err(Reason::SourceMartian),
        Some(NetKind::OnLink) => Ok(true),
        None => Ok(false),
    }
}

/// Whether the userspace path is serving this UDP client.
#[inline(always)]
pub fn not_handed_over(key: &FlowKey, now: u64) -> Result<(), Reason> {
    // SAFETY: one aligned word is read; a slot that is reused meanwhile gives another client's time, and the worst
    // that follows is that one datagram takes the other path.
    match unsafe { HANDED.get(key) } {
        Some(&since) if now.saturating_sub(since) < HANDED_FOR => Err(Reason::HandedOver),
        _ => Ok(()),
    }
}

/// Notes that this UDP client's datagram goes to userspace, so that its flow stays where it began.
#[inline(always)]
pub fn hand_over(key: &FlowKey, now: u64) {
    // An LRU table always takes it; were it to fail, the next datagram might take the kernel path: the reply then
    // comes from the same public address all the same, and only the backend sees another source port.
    let _ = HANDED.insert(key, now, 0);
}

/// Whether a live socket of this host owns the tuple.
///
/// `bpf_skc_lookup_tcp`, not `bpf_sk_lookup_tcp`: the latter shows a half-open connection as its listener and hides
/// TIME_WAIT.
#[inline(always)]
pub fn no_live_socket(ctx: &TcContext, key: &FlowKey, proto: L4Proto) -> Result<(), Reason> {
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: u32::from_ne_bytes(key.saddr),
                daddr: u32::from_ne_bytes(key.daddr),
                sport: u16::from_ne_bytes(key.sport),
                dport: u16::from_ne_bytes(key.dport),
            },
        },
    };
    let context = ctx.skb.skb.cast();
    let socket = match proto {
        // SAFETY: context and tuple are valid, and the length is that of the member that was filled.
        L4Proto::Tcp => unsafe { bpf_skc_lookup_tcp(context, &mut tuple, TUPLE_LEN, CURRENT_NETNS, 0) },
        // SAFETY: as above.
        L4Proto::Udp => unsafe { bpf_sk_lookup_udp(context, &mut tuple, TUPLE_LEN, CURRENT_NETNS, 0) },
    };
    if socket.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and held until it is released below.
    let state = unsafe { (*socket).state };
    // SAFETY: the socket came from a lookup and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    let free = match proto {
        L4Proto::Tcp => state == LISTEN || state == TIME_WAIT,
        L4Proto::Udp => state != ESTABLISHED,
    };
    if free { Ok(()) } else { Err(Reason::OwnedBySocket) }
}
