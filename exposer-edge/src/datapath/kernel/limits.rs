//! How many flows the programs may make: what the daemon writes beside its heartbeat.

use exposer_common::flow::Rate;
use exposer_common::names::FLOW_SLOTS;
use exposer_common::net::state::{SECOND, UNREPLIED};

/// Unanswered flows of all services together: an eighth of the table, so that a flood leaves seven for who is answered.
pub const OVERALL: Rate = unanswered(FLOW_SLOTS / 8);

/// Unanswered flows of one service: a quarter of that, so that a flood to one leaves room for the others.
pub const PER_SERVICE: Rate = unanswered(FLOW_SLOTS / 32);

/// So many at once; each comes back with the first answer, or when the flow's time is over.
const fn unanswered(flows: u32) -> Rate {
    let burst = flows as u64;
    Rate {
        burst,
        interval: UNREPLIED.div_ceil(burst),
    }
}

/// New flows of one client address: `rate` a second, four times as many at once.
#[must_use]
pub fn per_source(rate: u32) -> Rate {
    match SECOND.checked_div(rate.into()) {
        Some(interval) => Rate {
            burst: u64::from(rate).saturating_mul(4),
            interval: interval.max(1),
        },
        None => Rate::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_comes_back_within_the_life_of_an_unanswered_flow() {
        for rate in [OVERALL, PER_SERVICE] {
            let refill = rate.burst * rate.interval;
            assert!((UNREPLIED..UNREPLIED + rate.burst).contains(&refill), "{refill}");
        }
        assert_eq!((OVERALL.burst, PER_SERVICE.burst), (49_152, 12_288));
    }

    #[test]
    fn a_clients_rate() {
        assert_eq!(
            per_source(500),
            Rate {
                burst: 2000,
                interval: 2_000_000
            }
        );
        assert_eq!(per_source(0), Rate::default(), "no limit");
        assert_eq!(per_source(u32::MAX).interval, 1);
    }
}
