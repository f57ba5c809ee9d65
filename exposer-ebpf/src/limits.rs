//! How many flows may be made: by one client, and without an answer (DESIGN §2).
//!
//! Buckets are changed by plain loads and stores. Two CPUs that take the last token at once both get it: a limit may be
//! passed by as many flows as there are CPUs, which changes nothing of what it is for.

use aya_ebpf::bindings::BPF_NOEXIST;
use exposer_common::flow::{Bucket, Control, FlowKey, Rate, SourceKey};
use exposer_common::names::UNREPLIED_OVERALL;
use exposer_common::service::L4Proto;
use exposer_common::verdict::Reason;

use crate::maps::{SOURCES, UNREPLIED};

/// Takes a token for a new flow from its client's bucket, its service's and that of all.
///
/// # Errors
///
/// Where one is empty: a SYN goes to the stack, which has SYN cookies; a datagram is dropped, for there is nobody to
/// tell a flood from a crowd.
#[inline(always)]
pub fn admit(control: &Control, key: &FlowKey, proto: L4Proto, service: u32, now: u64) -> Result<(), Reason> {
    let (source, unreplied) = match proto {
        L4Proto::Tcp => (Reason::SourceLimited, Reason::UnrepliedBudget),
        L4Proto::Udp => (Reason::UdpLimited, Reason::UdpLimited),
    };
    if !take_source(key.saddr, control.per_source, now) {
        return Err(source);
    }
    if !take_unreplied(service, control.per_service, now)
        || !take_unreplied(UNREPLIED_OVERALL, control.overall, now)
    {
        return Err(unreplied);
    }
    Ok(())
}

/// Gives the tokens of an unanswered flow back: it has been answered, or was not made after all.
#[inline(always)]
pub fn answered(service: u32) {
    for index in [service, UNREPLIED_OVERALL] {
        if let Some(bucket) = UNREPLIED.get_ptr_mut(index) {
            // SAFETY: from a map lookup of this run; the reference ends with this call.
            unsafe { &mut *bucket }.give();
        }
    }
}

#[inline(always)]
fn take_unreplied(index: u32, rate: Rate, now: u64) -> bool {
    let Some(bucket) = UNREPLIED.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: as in answered.
    unsafe { &mut *bucket }.take(rate, now)
}

#[inline(always)]
fn take_source(saddr: [u8; 4], rate: Rate, now: u64) -> bool {
    let key = SourceKey { saddr };
    if let Some(bucket) = SOURCES.get_ptr_mut(key) {
        // SAFETY: from a map lookup of this run; a slot that is reused meanwhile costs another client one token.
        return unsafe { &mut *bucket }.take(rate, now);
    }
    let mut bucket = Bucket::default();
    let taken = bucket.take(rate, now);
    // Another CPU may have been faster, or the table be busy: the next flow finds or makes the bucket.
    let _ = SOURCES.insert(key, bucket, BPF_NOEXIST.into());
    taken
}
