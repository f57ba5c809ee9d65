//! Finding and making flows (DESIGN §2, "Making a masquerade flow").

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use exposer_common::flow::{FlowEntry, FlowKey};
use exposer_common::net::nat::{self, NewFlow, PROBES, opposite_key};
use exposer_common::net::state::{State, state};
use exposer_common::service::{L4Proto, ServiceEntry, ServiceKey};
use exposer_common::verdict::{Reason, Verdict};

use crate::maps::{FLOWS, REPLIES, SERVICES};
use crate::packet::Packet;
use crate::stats::count_service;
use crate::{guard, limits};

/// `-EEXIST`: another entry has the key.
const EEXIST: i32 = -17;

/// A flow's entry in this direction, and whether this packet made it.
pub struct Found {
    /// Points into a map, so it is valid until the program ends.
    pub entry: *mut FlowEntry,
    /// [`Reason::ForwardHit`] or [`Reason::ForwardNew`].
    pub reason: Reason,
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: a few milliseconds coarse, and a tenth of the precise clock's price.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and has no preconditions (Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Notes a packet in its direction's entry.
///
/// Plain loads and stores: where two CPUs receive one flow at once, a count or a flag may be lost. The worst is a FIN
/// that is not noted, so that the flow lives out the longer timeout; it heals with the next segment that carries it.
#[inline(always)]
pub fn note(entry: *mut FlowEntry, now: u64, tcp_flags: u8, bytes: u32) {
    // SAFETY: the pointer came from a map lookup of this run; the reference ends with this function.
    let entry = unsafe { &mut *entry };
    if entry.seen != now {
        entry.seen = now;
    }
    if entry.tcp_flags | tcp_flags != entry.tcp_flags {
        entry.tcp_flags |= tcp_flags;
    }
    entry.packets = entry.packets.wrapping_add(1);
    entry.bytes = entry.bytes.wrapping_add(bytes.into());
}

/// Finds the flow of a client's packet, or makes it.
///
/// # Errors
///
/// The reason why the packet goes to the stack. Nothing of the packet has been written then.
#[inline(always)]
pub fn find_or_make(ctx: &TcContext, packet: &Packet, key: &FlowKey, now: u64) -> Result<Found, Reason> {
    if let Some(entry) = FLOWS.get_ptr_mut(key)
        && (!packet.transport.opens() || still_open(entry, key, now))
    {
        return Ok(Found {
            entry,
            reason: Reason::ForwardHit,
        });
    }
    make(ctx, packet, key, now)
}

/// Whether a SYN that found an entry belongs to its flow: a retransmission, or a connection over a closed one of the
/// same tuple, which is wiped here and lives again. `false` if the flow has to be made anew: its service points
/// elsewhere, or half of it is gone.
#[inline(always)]
fn still_open(entry: *mut FlowEntry, key: &FlowKey, now: u64) -> bool {
    // SAFETY: from a map lookup of this run; the reference ends before anything else touches the entry.
    let forward = unsafe { &mut *entry };
    let reply_key = opposite_key(forward, key.proto);
    let Some(reply) = REPLIES.get_ptr_mut(reply_key) else {
        let _ = FLOWS.remove(key);
        return false;
    };
    // SAFETY: as above.
    let reply = unsafe { &mut *reply };
    if !matches!(
        state(L4Proto::Tcp, forward.tcp_flags, reply.tcp_flags, reply.packets),
        State::Closing
    ) {
        return true;
    }
    let port = u16::from_be_bytes(key.dport);
    let service = ServiceKey {
        address: key.daddr,
        port,
        proto: L4Proto::Tcp,
        pad: 0,
    };
    // SAFETY: two words are read; a slot reused meanwhile gives a wrong generation, and the flow is then made anew.
    let current = unsafe { SERVICES.get(service) };
    if !current
        .is_some_and(|current| current.index == forward.service && current.generation == forward.generation)
    {
        let _ = FLOWS.remove(key);
        let _ = REPLIES.remove(reply_key);
        return false;
    }
    (forward.tcp_flags, forward.created) = (0, now);
    (reply.tcp_flags, reply.packets, reply.created) = (0, 0, now);
    true
}

/// Makes a flow for the first packet of a client.
#[inline(always)]
fn make(ctx: &TcContext, packet: &Packet, key: &FlowKey, now: u64) -> Result<Found, Reason> {
    let proto = packet.proto;
    if matches!(proto, L4Proto::Tcp) && !packet.transport.opens() {
        return Err(Reason::NoFlow);
    }
    let port = u16::from_be_bytes(key.dport);
    let service = ServiceKey {
        address: key.daddr,
        port,
        proto,
        pad: 0,
    };
    // SAFETY: copied at once; a slot reused meanwhile gives another service's target for this one flow, as a service
    // that changes at this very moment would.
    let service = *unsafe { SERVICES.get(service) }.ok_or(Reason::NoService)?;
    let on_link = guard::source(key.saddr)?;
    guard::no_live_socket(ctx, key, proto)?;
    if matches!(proto, L4Proto::Udp) {
        guard::not_handed_over(key, now)?;
    }
    let found = allowed(key, proto, &service, on_link, now);
    if let Err(reason) = found
        && matches!(proto, L4Proto::Udp)
        && matches!(reason.verdict(), Verdict::Pass)
    {
        guard::hand_over(key, now);
    }
    found
}

/// Makes a flow if the daemon lives and the limits allow it.
#[inline(always)]
fn allowed(
    key: &FlowKey,
    proto: L4Proto,
    service: &ServiceEntry,
    on_link: bool,
    now: u64,
) -> Result<Found, Reason> {
    let control = guard::control_alive(now)?;
    limits::admit(control, key, proto, service.index, now)?;
    let found = establish(key, service, on_link, now);
    if found.is_err() {
        limits::answered(service.index);
    }
    found
}

/// Claims a SNAT port by the reverse entry, then enters the forward one.
///
/// Two CPUs may do this for one client at once. Both try the same candidates in the same order, so one inserts and
/// the other finds an entry that names its own client, and adopts it.
#[inline(always)]
fn establish(key: &FlowKey, service: &ServiceEntry, on_link: bool, now: u64) -> Result<Found, Reason> {
    let hash = nat::hash(key);
    let mut probe = 0;
    while probe < PROBES {
        let snat_port = nat::candidate(service, hash, probe);
        let flow = NewFlow {
            key,
            service,
            snat_port,
            on_link,
            now,
        };
        let reply_key = flow.reply_key();
        match REPLIES.insert(reply_key, flow.reply(), BPF_NOEXIST.into()) {
            Ok(()) => return enter_forward(&flow, &reply_key, true),
            Err(EEXIST) => {
                if adopt(&flow, &reply_key) {
                    return enter_forward(&flow, &reply_key, false);
                }
            }
            // E2BIG, ENOMEM or EBUSY: the table is full, or busy beneath us.
            Err(_) => return Err(Reason::FlowsFull),
        }
        probe = probe.wrapping_add(1);
    }
    Err(Reason::SnatExhausted)
}

/// Whether the reverse entry that is there already belongs to the same client; what an earlier connection left in it
/// is wiped then.
#[inline(always)]
fn adopt(flow: &NewFlow<'_>, reply_key: &FlowKey) -> bool {
    let Some(existing) = REPLIES.get_ptr_mut(reply_key) else {
        return false;
    };
    // SAFETY: from a map lookup of this run; the reference ends with this function.
    let existing = unsafe { &mut *existing };
    if existing.daddr != flow.key.saddr
        || existing.dport != flow.key.sport
        || existing.saddr != flow.key.daddr
        || existing.sport != flow.key.dport
    {
        return false;
    }
    (existing.tcp_flags, existing.seen) = (0, flow.now);
    (existing.service, existing.generation) = (flow.service.index, flow.service.generation);
    true
}

/// Enters the forward entry, or takes the one that another CPU has entered meanwhile.
#[inline(always)]
fn enter_forward(flow: &NewFlow<'_>, reply_key: &FlowKey, ours: bool) -> Result<Found, Reason> {
    match FLOWS.insert(flow.key, flow.forward(), BPF_NOEXIST.into()) {
        Ok(()) => count_service(flow.service.index, |counters| {
            counters.flows = counters.flows.wrapping_add(1);
        }),
        Err(EEXIST) => {}
        Err(_) => {
            if ours {
                let _ = REPLIES.remove(reply_key);
            }
            return Err(Reason::FlowsFull);
        }
    }
    // Gone again between insertion and lookup only if the sweep has taken it, which leaves fresh entries alone.
    let entry = FLOWS.get_ptr_mut(flow.key).ok_or(Reason::FlowsFull)?;
    // SAFETY: from a map lookup of this run, copied at once.
    let port = unsafe { (*entry).sport };
    if ours && port != flow.snat_port.to_be_bytes() {
        let _ = REPLIES.remove(reply_key);
    }
    Ok(Found {
        entry,
        reason: Reason::ForwardNew,
    })
}
