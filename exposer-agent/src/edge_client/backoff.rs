//! How long to wait before the next connection: exponential, with full jitter.
//!
//! The wait is drawn evenly between a floor and a ceiling that doubles with every attempt. After an edge restarts, its
//! agents therefore come back spread out, instead of in step. Pure: randomness is an argument.

use std::time::Duration;

/// A session that lasted so long has proven that the way is good: the next failure starts from the beginning.
pub const STABLE: Duration = Duration::from_secs(60);

/// How urgent another attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The way is broken: it may be whole again at any moment.
    Quick,
    /// Somebody has to mend a setting first: a token, a version, a name. Asking often helps nobody.
    Slow,
}

impl Pace {
    /// Shortest wait, and the ceiling after the first attempt.
    const fn bounds(self) -> (Duration, Duration) {
        match self {
            Self::Quick => (Duration::from_millis(100), Duration::from_secs(1)),
            Self::Slow => (Duration::from_secs(15), Duration::from_secs(30)),
        }
    }

    /// Highest ceiling.
    const fn most(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(30),
            Self::Slow => Duration::from_secs(60),
        }
    }
}

/// Counts failed attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure. `random` is evenly distributed over its whole range.
    pub fn next(&mut self, pace: Pace, random: u64) -> Duration {
        let (floor, first) = pace.bounds();
        let factor = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        let ceiling = first.saturating_mul(factor).min(pace.most());
        self.failures = self.failures.saturating_add(1);
        let span = u64::try_from(ceiling.saturating_sub(floor).as_millis()).unwrap_or(u64::MAX);
        let within = random.checked_rem(span.saturating_add(1)).unwrap_or(0);
        floor.saturating_add(Duration::from_millis(within))
    }

    /// A session came about and lasted for `lasted`; if that was [`STABLE`], earlier failures are forgotten.
    pub fn session_ended(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.failures = 0;
        }
    }

    /// Failures since the last stable session.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest and the shortest wait of each attempt, in milliseconds.
    fn ceilings(pace: Pace, attempts: u32) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..attempts)
            .map(|_| {
                let (floor, _) = pace.bounds();
                let mut low = backoff;
                assert_eq!(low.next(pace, 0), floor);
                // The largest remainder is the width of the span.
                let at = backoff;
                let longest = (0..=60_000_u64)
                    .step_by(1)
                    .map(|random| {
                        let mut b = at;
                        b.next(pace, random)
                    })
                    .max();
                backoff.next(pace, 0);
                longest.unwrap().as_millis()
            })
            .collect()
    }

    #[test]
    fn ceilings_double_up_to_a_limit() {
        assert_eq!(
            ceilings(Pace::Quick, 8),
            [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
        );
        assert_eq!(ceilings(Pace::Slow, 4), [30_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_wrong_token_is_never_tried_more_often_than_every_15_seconds() {
        let mut backoff = Backoff::default();
        for random in [0, 1, u64::MAX, 12_345] {
            assert!(backoff.next(Pace::Slow, random) >= Duration::from_secs(15));
        }
    }

    #[test]
    fn only_a_stable_session_forgives() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(Pace::Quick, 7);
        }
        backoff.session_ended(STABLE.checked_sub(Duration::from_millis(1)).unwrap());
        assert_eq!(backoff.failures(), 5);
        backoff.session_ended(STABLE);
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.next(Pace::Quick, u64::MAX) <= Duration::from_secs(1));
    }

    #[test]
    fn counting_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert!(backoff.next(Pace::Quick, u64::MAX) <= Pace::Quick.most());
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
