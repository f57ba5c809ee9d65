//! Counting: packets by reason, packets and bytes by service. All per CPU, so without atomics.

use exposer_common::service::ServiceCounters;
use exposer_common::verdict::Reason;

use crate::maps::{REASONS, SERVICE_STATS};

/// Counts a packet under its reason.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    if let Some(count) = REASONS.get_ptr_mut(reason.index()) {
        // SAFETY: the cell is this CPU's own, and a TC program is not interrupted by another on the same CPU; the
        // reference ends with this function.
        let count = unsafe { &mut *count };
        *count = count.wrapping_add(1);
    }
}

/// Lets `change` count something of a service.
#[inline(always)]
pub fn count_service(index: u32, change: impl FnOnce(&mut ServiceCounters)) {
    if let Some(counters) = SERVICE_STATS.get_ptr_mut(index) {
        // SAFETY: as in count_reason; the reference ends with this call.
        change(unsafe { &mut *counters });
    }
}
