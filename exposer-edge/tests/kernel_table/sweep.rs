//! Expiry, of entries that the program itself has made.

use std::collections::{BTreeSet, HashMap};

use crate::bench::*;
use crate::packet::{ACK, FIN, Frame, SYN};
use anyhow::{Context as _, Result, ensure};
use exposer_common::flow::FlowEntry;
use exposer_common::net::nat::opposite_key;
use exposer_common::service::L4Proto;
use exposer_edge::datapath::kernel::sweep::{Cut, sweep};
use exposer_edge::datapath::kernel::{clock, table};

#[test]
fn the_sweep_ends_flows_by_state_both_ways() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        // Sources: unanswered, opening, established, half-closed, closed; each is given an age.
        let rows: [(u16, u8, u8, u64); 5] = [
            (49_000, SYN, 0, 0),
            (49_001, SYN, SYN | ACK, 1),
            (49_002, SYN | ACK, SYN | ACK, 9),
            (49_003, SYN | ACK | FIN, SYN | ACK, 9),
            (49_004, SYN | ACK | FIN, SYN | ACK | FIN, 9),
        ];
        let lives = [30, 240, 7440, 7440, 240];
        for (sport, ..) in rows {
            bench.run(
                &Frame {
                    sport,
                    ..Frame::tcp(SYN)
                }
                .build(),
            )?;
        }
        let flows = table::entries(&bench.flows.flows)?;
        let seen = clock::now()?;
        let mut age = |seconds: u64| -> Result<BTreeSet<u16>> {
            for (key, forward) in &flows {
                let sport = u16::from_be_bytes(key.sport);
                let (_, ours, theirs, packets) =
                    rows.into_iter().find(|row| row.0 == sport).context("a row")?;
                let reply_key = opposite_key(forward, key.proto);
                let reply = FlowEntry {
                    tcp_flags: theirs,
                    packets,
                    seen,
                    created: seen,
                    ..*forward
                };
                bench.flows.replies.insert(reply_key, reply, 0)?;
                bench.flows.flows.insert(
                    key,
                    FlowEntry {
                        tcp_flags: ours,
                        seen,
                        created: seen,
                        ..*forward
                    },
                    0,
                )?;
            }
            sweep(
                &mut bench.flows,
                &HashMap::new(),
                &[],
                false,
                seen + seconds * 1_000_000_000,
            )?;
            let left = table::entries(&bench.flows.flows)?;
            let replies = table::entries(&bench.flows.replies)?.len();
            ensure!(
                left.len() == replies,
                "{} forward and {replies} reply entries: SNAT ports leak",
                left.len()
            );
            Ok(left
                .iter()
                .map(|(key, _)| u16::from_be_bytes(key.sport))
                .collect())
        };
        for seconds in [20, 50, 300, 7500] {
            let expected: BTreeSet<u16> = rows
                .iter()
                .zip(lives)
                .filter(|(_, life)| seconds < *life)
                .map(|(row, _)| row.0)
                .collect();
            let left = age(seconds)?;
            ensure!(
                left == expected,
                "after {seconds} s: {left:?} left, wanted {expected:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn the_sweep_cuts_generations_and_orphans() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for sport in [50_100, 50_101] {
            bench.run(
                &Frame {
                    sport,
                    ..Frame::udp(b"old")
                }
                .build(),
            )?;
        }
        bench.serve(2, 1024, 28_976)?;
        bench.run(
            &Frame {
                sport: 50_102,
                ..Frame::udp(b"new")
            }
            .build(),
        )?;
        let cut = Cut {
            service: 5,
            protocol: L4Proto::Udp,
            generation: 1,
        };
        let swept = sweep(&mut bench.flows, &HashMap::new(), &[cut], false, clock::now()?)?;
        ensure!(
            swept.cut == 2 && swept.live.total == 1 && bench.flow_count()? == (1, 1),
            "{swept:?}"
        );
        ensure!(swept.live.by_service.get(&5) == Some(&1), "{swept:?}");
        // A reply entry whose forward one is gone: young ones wait, old ones go.
        let (key, _) = table::entries(&bench.flows.flows)?[0];
        table::delete(&mut bench.flows.flows, &key)?;
        let swept = sweep(&mut bench.flows, &HashMap::new(), &[], true, clock::now()?)?;
        ensure!(
            swept.orphans == 0 && bench.flow_count()? == (0, 1),
            "a program enters the reply first: {swept:?}"
        );
        let (key, reply) = table::entries(&bench.flows.replies)?[0];
        let long_ago = clock::now()? - 31_000_000_000;
        bench.flows.replies.insert(
            key,
            FlowEntry {
                seen: long_ago,
                created: long_ago,
                ..reply
            },
            0,
        )?;
        let swept = sweep(&mut bench.flows, &HashMap::new(), &[], true, clock::now()?)?;
        ensure!(swept.orphans == 1 && bench.flow_count()? == (0, 0), "{swept:?}");
        Ok(())
    })
}
