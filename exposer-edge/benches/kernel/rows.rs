//! Comparisons: ratios of turns of the same round.

use serde::Serialize;

use crate::Case;
use crate::lanes::Kind;
use crate::measure::Samples;
use crate::statistics::{Median, median};

/// One comparison, as it is written to `target/bench/kernel.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of `ours` and `peer`.
    pub unit: &'static str,
    /// Exposer's median.
    pub ours: f64,
    /// With whom it is compared.
    pub peer_name: &'static str,
    /// The other's median.
    pub peer: f64,
    /// How many times better Exposer is: above 1 is better for us. The median of the rounds' ratios.
    pub ratio: f64,
    /// Lower end of the ratio's 95 % interval.
    pub ratio_low: f64,
    /// Upper end.
    pub ratio_high: f64,
    /// Ratio that is aimed at.
    pub target: Option<f64>,
    /// Rounds.
    pub samples: usize,
}

impl Row {
    /// Whether the target is reached, missed by more than a tenth, or neither can be said.
    pub fn verdict(&self) -> &'static str {
        match self.target {
            None => "",
            Some(target) if self.ratio_low >= target => "reached",
            Some(target) if self.ratio_high < target => "missed",
            Some(_) => "inconclusive",
        }
    }
}

/// A contender's turns, by case.
pub fn of(all: &[Samples], kind: Kind) -> &Samples {
    &all[kind as usize]
}

/// Nanoseconds of each turn.
fn times(all: &[Samples], kind: Kind) -> impl Iterator<Item = f64> {
    of(all, kind).turns.iter().map(|turn| turn.nanoseconds)
}

/// Median time of a packet.
pub fn time(all: &[Samples], kind: Kind) -> Median {
    median(times(all, kind))
}

/// Every comparison of every case.
pub fn rows(results: &[(Case, Vec<Samples>)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (case, all) in results {
        rows.extend([
            whole_path(*case, all, Kind::Bare, None),
            whole_path(*case, all, Kind::Forwarding, Some(1.0)),
            whole_path(*case, all, Kind::Nftables, Some(3.0)),
            above(Kind::Floor, *case, all, Kind::Forwarding, None),
            above(Kind::Floor, *case, all, Kind::Nftables, None),
            above(Kind::Bare, *case, all, Kind::Nftables, Some(6.67)),
            unmanaged(*case, all),
        ]);
    }
    rows
}

/// Packets per second of the whole path, generator and far end included.
fn whole_path(case: Case, all: &[Samples], peer: Kind, target: Option<f64>) -> Row {
    let ratio = median(
        times(all, Kind::Ours)
            .zip(times(all, peer))
            .map(|(ours, peer)| peer / ours),
    );
    row(
        format!("{}, whole path", case.name()),
        "packets/s",
        (1e9 / time(all, Kind::Ours).value, 1e9 / time(all, peer).value),
        (peer, ratio, target, all),
    )
}

/// Time of a packet above what a base takes: the generator alone, or a bare redirect.
fn above(base: Kind, case: Case, all: &[Samples], peer: Kind, target: Option<f64>) -> Row {
    let net = |kind| -> Vec<f64> {
        let pairs = times(all, kind).zip(times(all, base));
        pairs.map(|(time, base)| time - base).collect()
    };
    let (ours, theirs) = (net(Kind::Ours), net(peer));
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours));
    let what = if base == Kind::Floor {
        "without the generator"
    } else {
        "above a bare redirect"
    };
    row(
        format!("{}, {what}", case.name()),
        "ns/packet",
        (median(ours).value, median(theirs).value),
        (peer, ratio, target, all),
    )
}

/// What a packet that is none of ours pays for our being there.
fn unmanaged(case: Case, all: &[Samples]) -> Row {
    let (with, without) = (Kind::Unmanaged, Kind::Forwarding);
    let ratio = median(
        times(all, with)
            .zip(times(all, without))
            .map(|(with, without)| without / with),
    );
    row(
        format!("{}, ports not managed, Exposer attached", case.name()),
        "ns/packet",
        (time(all, with).value, time(all, without).value),
        (without, ratio, None, all),
    )
}

fn row(
    name: String,
    unit: &'static str,
    (ours, theirs): (f64, f64),
    (peer, ratio, target, all): (Kind, Median, Option<f64>, &[Samples]),
) -> Row {
    Row {
        name,
        unit,
        ours: rounded(ours),
        peer_name: peer.name(),
        peer: rounded(theirs),
        ratio: rounded(ratio.value),
        ratio_low: rounded(ratio.low),
        ratio_high: rounded(ratio.high),
        target,
        samples: of(all, peer).turns.len(),
    }
}

/// Three digits behind the point: the kernel counts whole nanoseconds.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
