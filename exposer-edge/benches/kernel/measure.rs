//! Turns: each contender in each round, none always first.

use anyhow::{Result, ensure};
use exposer_common::verdict::Reason;

use crate::generator::{Generator, Sample};
use crate::lanes::{Kind, Lanes};
use crate::recipe::{ACK, recipe};
use crate::{Case, Effort};

/// The turns of one contender in one case; a case's contenders stand in the order of [`Kind::ALL`].
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// One for each round.
    pub turns: Vec<Sample>,
    /// Turns that were done again, because something else ran in the middle of them.
    pub repeated: u32,
}

/// How often a disturbed turn is done again.
const TRIES: u32 = 4;

/// Measures a case.
pub fn case(
    lanes: &mut Lanes,
    generator: &mut Generator,
    case: Case,
    effort: Effort,
) -> Result<Vec<Samples>> {
    let mut all = vec![Samples::default(); Kind::ALL.len()];
    let before = lanes.edge.count(Reason::ForwardHit)?;
    let (new, mut made) = (lanes.edge.count(Reason::ForwardNew)?, 0);
    for round in 0..effort.rounds {
        for turn in 0..Kind::ALL.len() {
            let index = (round + turn) % Kind::ALL.len();
            let lane = &lanes.all[index];
            let feed = recipe(lane.kind, case.proto, ACK, case.flows);
            let samples = &mut all[index];
            for left in (0..TRIES).rev() {
                let sample = generator.run(&lane.edge, lane.wan, feed, effort.packets)?;
                ensure!(
                    sample.arrived * 2 > sample.made,
                    "{}: of {} packets only {} arrived",
                    lane.kind.name(),
                    sample.made,
                    sample.arrived
                );
                made += if lane.kind == Kind::Ours { sample.made } else { 0 };
                // The time of what ksoftirqd does at the far end is nobody's.
                if sample.outside * 100 <= sample.made || left == 0 {
                    samples.turns.push(sample);
                    break;
                }
                samples.repeated += 1;
            }
        }
    }
    let hits = lanes.edge.count(Reason::ForwardHit)? - before;
    ensure!(
        hits == made && lanes.edge.count(Reason::ForwardNew)? == new,
        "Exposer found the flow of {hits} packets of {made}: what was measured is not its established path"
    );
    Ok(all)
}
