//! Medians with intervals that assume nothing about how values are distributed.

/// A median, and the interval in which the true one lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The middle value.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The median of values, of which there must be some.
///
/// Its interval goes from the k-th smallest to the k-th largest value, with the largest k for which the true median
/// lies outside with a probability of 5 % at most (as often as a fair coin falls so one-sidedly). Below six values there
/// is no such k, and the interval is what was seen.
pub fn median(values: impl IntoIterator<Item = f64>) -> Median {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let middle = count / 2;
    let value = if count % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    };
    let rank = rank(count);
    Median {
        value,
        low: values[rank],
        high: values[count - 1 - rank],
    }
}

/// How many values at either end lie outside the interval.
fn rank(count: usize) -> usize {
    let mut rank = 0;
    // The chance of a fair coin to show heads exactly, and at most, `rank` times.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut at_most = exactly;
    while rank < count / 2 {
        exactly *= (count - rank) as f64 / (rank + 1) as f64;
        at_most += exactly;
        if 2.0 * at_most > 0.05 {
            break;
        }
        rank += 1;
    }
    rank
}
