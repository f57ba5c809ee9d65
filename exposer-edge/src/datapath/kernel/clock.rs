//! The clock that the programs stamp entries with.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds, as `bpf_ktime_get_coarse_ns` reads it.
///
/// # Errors
///
/// What `clock_gettime` said; it can't fail for this clock on Linux ≥ 2.6.32.
pub fn now() -> std::io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or_default();
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_forward() {
        let first = super::now().unwrap();
        assert!(first > 0);
        assert!(super::now().unwrap() >= first);
    }
}
