//! Connections and datagrams, translated one by one.

use crate::bench::*;
use crate::packet::{ACK, FIN, Frame, L4, RST, SYN, read};
use anyhow::{Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use exposer_common::names::PROG_WAN_INGRESS;
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::{load, table};

#[test]
fn a_connection_is_translated_segment_by_segment() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let syn = Frame::tcp(SYN);
        let first = bench.expect("SYN", &syn.build(), REDIRECT, Reason::ForwardNew)?;
        let seen = translated(&first, &syn)?;
        ensure!(
            seen.mss == Some(1380),
            "the MSS is clamped to the tunnel: {seen:?}"
        );
        let again = bench.expect("SYN once more", &syn.build(), REDIRECT, Reason::ForwardHit)?;
        ensure!(
            translated(&again, &syn)?.sport == seen.sport,
            "a retransmission keeps the SNAT port"
        );
        for (what, flags, payload) in [
            ("ACK", ACK, &b""[..]),
            ("data", ACK, b"odd"),
            ("FIN", ACK | FIN, b""),
            ("data after FIN", ACK, b"more"),
            ("RST", RST, b""),
        ] {
            let frame = Frame {
                payload: payload.to_vec(),
                ..Frame::tcp(flags)
            };
            let out = bench.expect(what, &frame.build(), REDIRECT, Reason::ForwardHit)?;
            ensure!(translated(&out, &frame)?.sport == seen.sport, "{what}");
            ensure!(out.bytes.ends_with(payload), "{what}: payload unchanged");
        }
        ensure!(bench.flow_count()? == (1, 1), "one flow, both ways");
        let (_, entry) = table::entries(&bench.flows.flows)?[0];
        ensure!(
            entry.packets == 7 && entry.tcp_flags == SYN | ACK | FIN | RST,
            "{entry:?}"
        );
        Ok(())
    })
}

#[test]
fn mss_options_anywhere() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let nops =
            |before: usize, after: usize| [vec![1; before], vec![2, 4, 0x23, 0x28], vec![1; after]].concat();
        let rows = [
            ("first", nops(0, 0), Some(1380)),
            ("odd offset", nops(1, 3), Some(1380)),
            ("last of forty bytes", nops(36, 0), Some(1380)),
            (
                "behind timestamps",
                [vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], nops(0, 0)].concat(),
                Some(1380),
            ),
            ("small enough", vec![2, 4, 0x02, 0x18], Some(536)),
            ("none", vec![1, 1, 1, 1], None),
            (
                "behind the end of the list",
                [vec![0, 0, 0, 0], nops(0, 0)].concat(),
                Some(9000),
            ),
        ];
        for (number, (what, options, mss)) in rows.into_iter().enumerate() {
            let sport = 41_000 + u16::try_from(number)?;
            let frame = Frame {
                sport,
                l4: L4::Tcp { flags: SYN, options },
                ..Frame::tcp(SYN)
            };
            let out = bench.expect(what, &frame.build(), REDIRECT, Reason::ForwardNew)?;
            let seen = translated(&out, &frame)?;
            ensure!(seen.mss == mss, "{what}: {seen:?}");
        }
        Ok(())
    })
}

#[test]
fn udp_checksums_present_and_absent() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for (sport, checksum, payload) in [
            (50_000, true, &b"hello"[..]),
            (50_001, false, b"hello"),
            (50_002, true, b""),
        ] {
            let frame = Frame {
                sport,
                l4: L4::Udp { checksum },
                ..Frame::udp(payload)
            };
            let out = bench.expect("UDP", &frame.build(), REDIRECT, Reason::ForwardNew)?;
            translated(&out, &frame)?;
            let absent = out.bytes[14 + 20 + 6..14 + 20 + 8] == [0, 0];
            ensure!(
                absent != checksum,
                "an absent checksum stays absent, a present one present"
            );
        }
        Ok(())
    })
}

#[test]
fn a_lost_forward_entry_comes_back_on_the_same_port() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let frame = Frame::udp(b"hello");
        let first = translated(&bench.run(&frame.build())?, &frame)?;
        let (key, _) = table::entries(&bench.flows.flows)?[0];
        table::delete(&mut bench.flows.flows, &key)?;
        let out = bench.expect("adopted", &frame.build(), REDIRECT, Reason::ForwardNew)?;
        ensure!(translated(&out, &frame)?.sport == first.sport && bench.flow_count()? == (1, 1));
        Ok(())
    })
}

#[test]
fn a_closed_tuple_opens_again_at_once() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let syn = Frame::tcp(SYN);
        let first = translated(&bench.run(&syn.build())?, &syn)?;
        bench.run(&Frame::tcp(ACK | FIN).build())?;
        let (reply_key, mut reply) = table::entries(&bench.flows.replies)?[0];
        (reply.packets, reply.tcp_flags) = (9, SYN | ACK | FIN);
        bench.flows.replies.insert(reply_key, reply, 0)?;
        let again = bench.expect(
            "SYN over a closed flow",
            &syn.build(),
            REDIRECT,
            Reason::ForwardHit,
        )?;
        ensure!(translated(&again, &syn)?.sport == first.sport);
        let (_, entry) = table::entries(&bench.flows.flows)?[0];
        ensure!(
            entry.tcp_flags == SYN,
            "the old connection's flags are wiped: {entry:?}"
        );

        // The same over a closed flow whose service points elsewhere by now: it is made anew.
        (reply.packets, reply.tcp_flags) = (9, SYN | ACK | RST);
        bench.flows.replies.insert(reply_key, reply, 0)?;
        bench.serve(2, 1024, 28_976)?;
        bench.expect("SYN after a change", &syn.build(), REDIRECT, Reason::ForwardNew)?;
        let (_, entry) = table::entries(&bench.flows.flows)?[0];
        ensure!(
            entry.generation == 2 && bench.flow_count()? == (1, 1),
            "{entry:?}"
        );
        Ok(())
    })
}

#[test]
fn two_cpus_make_one_flow() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for round in 0..200_u16 {
            let frame = Frame {
                sport: 43_000 + round,
                ..Frame::udp(b"race")
            }
            .build();
            let program: &aya::programs::SchedClassifier = load::program(&mut bench.ebpf, PROG_WAN_INGRESS)?;
            let barrier = std::sync::Barrier::new(2);
            let ports: Vec<u16> = std::thread::scope(|scope| {
                let race = || {
                    let mut out = vec![0_u8; 256];
                    barrier.wait();
                    let options = TestRunOptions {
                        data_in: Some(&frame),
                        data_out: Some(&mut out),
                        ..TestRunOptions::default()
                    };
                    program
                        .test_run(options)
                        .map(|result| (result.return_value, read(&out, 14).sport))
                };
                let runs = [scope.spawn(race), scope.spawn(race)];
                runs.into_iter()
                    .map(|run| run.join().unwrap().unwrap())
                    .map(|(verdict, port)| {
                        assert_eq!(verdict, REDIRECT);
                        port
                    })
                    .collect()
            });
            ensure!(ports[0] == ports[1], "round {round}: SNAT ports {ports:?}");
        }
        ensure!(
            bench.flow_count()? == (200, 200),
            "one entry each way for a flow: {:?}",
            bench.flow_count()?
        );
        Ok(())
    })
}
