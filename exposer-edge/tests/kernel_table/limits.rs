//! Budgets, SNAT ports and a full table.

use std::collections::BTreeSet;

use crate::bench::*;
use crate::packet::{ACK, Frame, SYN, read};
use anyhow::{Result, ensure};
use aya::maps::{Array, Map, MapData};
use exposer_common::flow::{Bucket, Control, FlowKey, Rate};
use exposer_common::names::{FLOW_SLOTS, UNREPLIED_OVERALL};
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::{clock, table};

#[test]
fn snat_ports_are_probed_unique_and_bounded() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.serve(1, 2000, 8)?;
        let mut ports = BTreeSet::new();
        let mut exhausted = 0;
        for number in 0..64 {
            let frame = Frame {
                sport: 42_000 + number,
                ..Frame::tcp(SYN)
            };
            let out = bench.run(&frame.build())?;
            if out.verdict == REDIRECT {
                ensure!(
                    ports.insert(read(&out.bytes, 14).sport),
                    "a SNAT port was given twice"
                );
            } else {
                ensure!(
                    out.verdict == PASS && out.reasons == [Reason::SnatExhausted],
                    "{:?}",
                    out.reasons
                );
                exhausted += 1;
            }
        }
        ensure!(ports.iter().all(|port| (2000..2008).contains(port)), "{ports:?}");
        ensure!(
            ports.len() == 8,
            "sixteen probes find every one of eight ports: {ports:?}"
        );
        ensure!(
            exhausted == 56 && bench.flow_count()? == (8, 8),
            "nothing is left behind by a failed attempt"
        );
        Ok(())
    })
}

#[test]
fn a_client_that_opens_too_much_is_left_to_userspace() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let per_source = Rate {
            burst: 10,
            interval: u64::MAX,
        };
        let control = Control {
            heartbeat: clock::now()?,
            max_age: 60_000_000_000,
            per_source,
            ..Control::default()
        };
        bench.maps.control.set(0, control, 0)?;
        for number in 0..10 {
            let frame = Frame {
                sport: 46_000 + number,
                ..Frame::tcp(SYN)
            };
            bench.expect("within the limit", &frame.build(), REDIRECT, Reason::ForwardNew)?;
        }
        let syn = Frame {
            sport: 46_100,
            ..Frame::tcp(SYN)
        };
        bench.expect("SYN beyond it", &syn.build(), PASS, Reason::SourceLimited)?;
        let udp = Frame {
            sport: 46_100,
            ..Frame::udp(b"x")
        };
        bench.expect("datagram beyond it", &udp.build(), DROP, Reason::UdpLimited)?;
        let known = Frame {
            sport: 46_000,
            ..Frame::tcp(ACK)
        };
        bench.expect("an existing flow", &known.build(), REDIRECT, Reason::ForwardHit)?;
        let other = Frame {
            saddr: [44, 128, 7, 8],
            ..syn
        };
        bench.expect("another client", &other.build(), REDIRECT, Reason::ForwardNew)?;
        Ok(())
    })
}

#[test]
fn unanswered_flows_have_a_budget_that_answers_refill() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for (per_service, overall) in [(8, 1000), (1000, 8)] {
            let rate = |burst| Rate {
                burst,
                interval: u64::MAX,
            };
            let control = Control {
                heartbeat: clock::now()?,
                max_age: 60_000_000_000,
                per_source: Rate::default(),
                per_service: rate(per_service),
                overall: rate(overall),
            };
            bench.maps.control.set(0, control, 0)?;
            let mut unreplied: Array<_, Bucket> =
                Array::try_from(Map::from_map_data(MapData::from_pin(bench.pin("UNREPLIED"))?)?)?;
            unreplied.set(
                5,
                Bucket {
                    tokens: per_service,
                    filled: 1,
                },
                0,
            )?;
            unreplied.set(
                UNREPLIED_OVERALL,
                Bucket {
                    tokens: overall,
                    filled: 1,
                },
                0,
            )?;
            let base = 47_000 + u16::try_from(per_service)? * 8;
            let mut made = 0;
            for number in 0..20 {
                let frame = Frame {
                    sport: base + number,
                    ..Frame::tcp(SYN)
                }
                .build();
                let out = bench.run(&frame)?;
                made += u16::from(out.verdict == REDIRECT);
                ensure!(
                    out.verdict == REDIRECT || out.reasons == [Reason::UnrepliedBudget],
                    "{:?}",
                    out.reasons
                );
            }
            ensure!(made == 8, "{made} flows within a budget of eight");
            let udp = Frame {
                sport: base,
                ..Frame::udp(b"x")
            }
            .build();
            bench.expect("datagram", &udp, DROP, Reason::UdpLimited)?;
            // What an answer does in `tunnel_ingress`.
            for index in [5, UNREPLIED_OVERALL] {
                let mut bucket = unreplied.get(&index, 0)?;
                bucket.give();
                unreplied.set(index, bucket, 0)?;
            }
            let frame = Frame {
                sport: base + 19,
                ..Frame::tcp(SYN)
            }
            .build();
            bench.expect("after an answer", &frame, REDIRECT, Reason::ForwardNew)?;
        }
        Ok(())
    })
}

#[test]
fn a_full_table_passes_new_flows_and_leaves_no_snat_port_behind() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        let (key, entry) = table::entries(&bench.flows.flows)?[0];
        for number in 1..FLOW_SLOTS {
            let other = FlowKey {
                saddr: number.to_be_bytes(),
                ..key
            };
            bench.flows.flows.insert(other, entry, 0)?;
        }
        let late = Frame {
            sport: 48_000,
            ..Frame::tcp(SYN)
        };
        bench.expect("SYN", &late.build(), PASS, Reason::FlowsFull)?;
        let udp = Frame {
            sport: 48_000,
            ..Frame::udp(b"x")
        };
        bench.expect("datagram", &udp.build(), PASS, Reason::FlowsFull)?;
        bench.expect(
            "a live flow",
            &Frame::tcp(ACK).build(),
            REDIRECT,
            Reason::ForwardHit,
        )?;
        let replies = table::entries(&bench.flows.replies)?.len();
        ensure!(
            replies == 1,
            "{replies} reply entries for one flow: SNAT ports leak"
        );
        Ok(())
    })
}
