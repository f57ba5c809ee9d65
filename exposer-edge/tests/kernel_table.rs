//! Packet in → verdict, reason and packet out: `wan_ingress` through `BPF_PROG_TEST_RUN`, in a namespace and a bpffs
//! of the test's own. Each row is one packet against freshly made maps.
//!
//! Needs root.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code"
)]

mod packet;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use aya::maps::lpm_trie::Key;
use aya::programs::{TestRun as _, TestRunOptions};
use exposer_common::flow::{Control, FlowKey};
use exposer_common::link::{LinkEntry, NetKind};
use exposer_common::names::PROG_WAN_INGRESS;
use exposer_common::net::checksum::internet_checksum;
use exposer_common::service::{L4Proto, PortMode, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::maps::{ConfigMaps, FlowMaps};
use exposer_edge::datapath::kernel::{clock, load, object, table};
use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Netns;
use packet::{ACK, FIN, Frame, L4, RST, SYN, Seen, read};

const PUBLIC: [u8; 4] = [44, 128, 0, 2];
const SNAT: [u8; 4] = [10, 0, 0, 1];
const BACKEND: [u8; 4] = [10, 96, 0, 10];
const PORT: u16 = 25_565;

/// `TC_ACT_UNSPEC`, as the program returns it.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;
const REDIRECT: u32 = 7;

/// The loaded program with its maps.
struct Bench {
    ebpf: aya::Ebpf,
    maps: ConfigMaps,
    flows: FlowMaps,
    _bpffs: Bpffs,
}

/// What became of a packet.
struct Out {
    verdict: u32,
    reasons: Vec<Reason>,
    bytes: Vec<u8>,
}

impl Bench {
    fn new() -> Result<Self> {
        let bpffs = Bpffs::new("ktable")?;
        let object = object::object().context(object::MISSING)?;
        let mut ebpf = load::load(object, &bpffs.path().join("exposer"), 1, 2)?;
        let (mut maps, flows) = (
            ConfigMaps::from_object(&mut ebpf)?,
            FlowMaps::from_object(&mut ebpf)?,
        );
        // Any index does: a test run yields the action without carrying it out.
        maps.links.set(
            1,
            LinkEntry {
                ifindex: 1,
                mtu: 1500,
                mss: 1460,
                ..LinkEntry::default()
            },
            0,
        )?;
        maps.links.set(
            2,
            LinkEntry {
                ifindex: 1,
                mtu: 1420,
                mss: 1380,
                ..LinkEntry::default()
            },
            0,
        )?;
        maps.control.set(
            0,
            Control {
                heartbeat: clock::now()?,
                max_age: 60_000_000_000,
            },
            0,
        )?;
        for ([a, b, c, d], length, kind) in [
            ([44, 128, 0, 0], 24, NetKind::OnLink),
            ([44, 128, 0, 2], 32, NetKind::Own),
            ([45, 0, 0, 0], 8, NetKind::Home),
        ] {
            maps.nets.insert(&Key::new(length, [a, b, c, d]), kind, 0)?;
        }
        let mut this = Self {
            ebpf,
            maps,
            flows,
            _bpffs: bpffs,
        };
        this.serve(1, 1024, 28_976)?;
        Ok(this)
    }

    fn serve(&mut self, generation: u32, snat_first: u16, snat_count: u16) -> Result<()> {
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let entry = ServiceEntry {
                backend: BACKEND,
                backend_port: 9000,
                mode: PortMode::Masquerade,
                egress_zone: 2,
                snat_address: SNAT,
                snat_first,
                snat_count,
                index: 5,
                generation,
            };
            self.maps.services.insert(
                ServiceKey {
                    address: PUBLIC,
                    port: PORT,
                    proto,
                    pad: 0,
                },
                entry,
                0,
            )?;
            self.maps
                .ports
                .set(proto.port_slot(PORT), PortMode::Masquerade, 0)?;
        }
        Ok(())
    }

    fn run(&mut self, frame: &[u8]) -> Result<Out> {
        let before = self.maps.reason_counts()?;
        let mut bytes = vec![0_u8; frame.len() + 64];
        let program = load::program(&mut self.ebpf, PROG_WAN_INGRESS)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options)?;
        bytes.truncate(usize::try_from(result.data_size_out)?);
        let count = |counts: &[(Reason, u64)], reason| {
            counts.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
        };
        let after = self.maps.reason_counts()?;
        let reasons = after
            .iter()
            .filter(|(r, n)| *n > count(&before, *r))
            .map(|(r, _)| *r)
            .collect();
        Ok(Out {
            verdict: result.return_value,
            reasons,
            bytes,
        })
    }

    fn expect(&mut self, what: &str, frame: &[u8], verdict: u32, reason: Reason) -> Result<Out> {
        let out = self.run(frame)?;
        ensure!(
            out.verdict == verdict && out.reasons == [reason],
            "{what}: verdict {} and {:?}, wanted {verdict} and {reason:?}",
            out.verdict.cast_signed(),
            out.reasons,
        );
        if verdict == PASS {
            ensure!(out.bytes == frame, "{what}: a passed packet must be as it was");
        }
        Ok(out)
    }

    fn flow_count(&self) -> Result<(usize, usize)> {
        Ok((
            table::entries(&self.flows.flows)?.len(),
            table::entries(&self.flows.replies)?.len(),
        ))
    }
}

/// Runs a test in a namespace of its own: socket look-ups of the program must see nothing of the host.
fn in_namespace(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    Netns::new("ktable", "edge")?.run(test)
}

fn translated(out: &Out, frame: &Frame) -> Result<Seen> {
    let seen = read(&out.bytes, 14);
    ensure!(
        seen.saddr == SNAT && seen.daddr == BACKEND && seen.dport == 9000,
        "{seen:?}"
    );
    ensure!((1024..30_000).contains(&seen.sport), "SNAT port {}", seen.sport);
    ensure!(seen.ttl == frame.ttl - 1, "one hop less to live: {seen:?}");
    ensure!(seen.ip_ok && seen.l4_ok, "checksums: {seen:?}");
    Ok(seen)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a row for each reason")]
fn what_is_not_ours_passes_untouched() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let syn = Frame::tcp(SYN);
        let with = |change: &dyn Fn(&mut Frame)| {
            let mut frame = syn.clone();
            change(&mut frame);
            frame.build()
        };
        let patched = |at: usize, value: u8| {
            let mut bytes = syn.build();
            bytes[at] = value;
            bytes
        };
        let rows: Vec<(&str, Vec<u8>, Reason)> = vec![
            ("another port", with(&|f| f.dport = 22), Reason::Unmanaged),
            (
                "another address",
                with(&|f| f.daddr = [44, 128, 0, 3]),
                Reason::NoService,
            ),
            ("ARP", patched(13, 6), Reason::NotIpv4),
            (
                "IPv6",
                {
                    let mut b = syn.build();
                    b[12] = 0x86;
                    b[13] = 0xdd;
                    b
                },
                Reason::NotIpv4,
            ),
            (
                "broadcast",
                {
                    let mut b = syn.build();
                    b[..6].fill(0xff);
                    b
                },
                Reason::NotForHost,
            ),
            ("multicast", patched(0, 1), Reason::NotForHost),
            ("another station's frame", patched(5, 9), Reason::NotForHost),
            ("GRE", patched(14 + 9, 47), Reason::NotTcpUdp),
            ("IPv4 options", patched(14, 0x46), Reason::IpOptions),
            ("header length 4", patched(14, 0x44), Reason::Malformed),
            ("version 6", patched(14, 0x65), Reason::Malformed),
            (
                "total length beyond the packet",
                patched(14 + 2, 0x7f),
                Reason::Truncated,
            ),
            (
                "total length below the header",
                {
                    let mut b = syn.build();
                    b[16] = 0;
                    b[17] = 19;
                    b
                },
                Reason::Malformed,
            ),
            ("echo request", patched(14 + 9, 1), Reason::IcmpOther),
            ("later fragment", with(&|f| f.fragment = 0x00b9), Reason::Fragment),
            (
                "TCP data offset 4",
                patched(14 + 20 + 12, 0x40),
                Reason::Malformed,
            ),
            (
                "TCP data offset beyond the packet",
                patched(14 + 20 + 12, 0xf0),
                Reason::Malformed,
            ),
            (
                "no SYN, no flow",
                with(&|f| {
                    f.l4 = L4::Tcp {
                        flags: ACK,
                        options: vec![],
                    }
                }),
                Reason::NoFlow,
            ),
            (
                "RST without a flow",
                with(&|f| {
                    f.l4 = L4::Tcp {
                        flags: RST,
                        options: vec![],
                    }
                }),
                Reason::NoFlow,
            ),
            (
                "SYN and ACK at once",
                with(&|f| {
                    f.l4 = L4::Tcp {
                        flags: SYN | ACK,
                        options: vec![],
                    }
                }),
                Reason::NoFlow,
            ),
            (
                "SYN and FIN at once",
                with(&|f| {
                    f.l4 = L4::Tcp {
                        flags: SYN | FIN,
                        options: vec![],
                    }
                }),
                Reason::NoFlow,
            ),
            (
                "private source",
                with(&|f| f.saddr = [192, 168, 1, 1]),
                Reason::SourceMartian,
            ),
            (
                "loopback source",
                with(&|f| f.saddr = [127, 0, 0, 1]),
                Reason::SourceMartian,
            ),
            (
                "documentation source",
                with(&|f| f.saddr = [203, 0, 113, 9]),
                Reason::SourceMartian,
            ),
            (
                "multicast source",
                with(&|f| f.saddr = [224, 0, 0, 5]),
                Reason::SourceMartian,
            ),
            (
                "source inside home",
                with(&|f| f.saddr = [45, 1, 2, 3]),
                Reason::SourceMartian,
            ),
            (
                "our own source",
                with(&|f| f.saddr = PUBLIC),
                Reason::SourceMartian,
            ),
        ];
        for (what, frame, reason) in rows {
            bench.expect(what, &frame, PASS, reason)?;
        }
        let mut udp = Frame::udp(b"hello").build();
        for length in [0_u8, 7, 14] {
            udp[14 + 20 + 5] = length;
            bench.expect("a UDP length that lies", &udp, PASS, Reason::Malformed)?;
        }
        ensure!(bench.flow_count()? == (0, 0), "nothing of this makes a flow");
        Ok(())
    })
}

#[test]
fn every_truncation_passes_untouched() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for frame in [Frame::tcp(SYN).build(), Frame::udp(b"hello").build()] {
            // The kernel's test run itself refuses an IPv4 frame without a whole IPv4 header (Linux 6.18).
            for length in 34..frame.len() {
                let out = bench.run(&frame[..length])?;
                ensure!(
                    out.verdict == PASS,
                    "{length} of {} bytes: verdict {}",
                    frame.len(),
                    out.verdict
                );
                ensure!(out.bytes == frame[..length], "{length} bytes were changed");
            }
        }
        ensure!(bench.flow_count()? == (0, 0));
        Ok(())
    })
}

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

/// An answer of ours: from the public address, both checksums right, quoting what the client sent.
fn answered(out: &Out, frame: &[u8], kind: u8, code: u8) -> Result<()> {
    let ip = &out.bytes[14..];
    ensure!(
        out.bytes[..12] == [&frame[6..12], &frame[..6]].concat(),
        "the Ethernet addresses are swapped"
    );
    ensure!(
        ip[9] == 1 && ip[12..16] == PUBLIC && ip[16..20] == frame[26..30],
        "{ip:?}"
    );
    ensure!(
        usize::from(u16::from_be_bytes([ip[2], ip[3]])) == ip.len(),
        "the length is true"
    );
    let right = |bytes: &[u8]| matches!(internet_checksum(bytes), [0, 0] | [0xff, 0xff]);
    ensure!(right(&ip[..20]) && right(&ip[20..]), "checksums: {ip:?}");
    ensure!(ip[20..22] == [kind, code], "ICMP {kind}/{code}: {ip:?}");
    let quote = &ip[28..];
    ensure!(
        quote[..20] == frame[14..34] && quote[20..24] == frame[34..38],
        "the quote is what the client sent"
    );
    Ok(())
}

#[test]
fn the_last_hop_is_answered_with_time_exceeded() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for frame in [
            Frame {
                ttl: 1,
                ..Frame::tcp(SYN)
            },
            Frame {
                ttl: 0,
                ..Frame::udp(b"")
            },
        ] {
            let frame = frame.build();
            answered(
                &bench.expect("TTL", &frame, REDIRECT, Reason::TtlAnswered)?,
                &frame,
                11,
                0,
            )?;
        }
        let frame = Frame {
            ttl: 2,
            ..Frame::tcp(SYN)
        };
        translated(&bench.run(&frame.build())?, &frame)?;
        Ok(())
    })
}

#[test]
fn too_big_is_answered_with_the_tunnels_mtu_and_limited() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        let payload = |bytes: usize| Frame {
            payload: vec![7; bytes],
            ..Frame::tcp(ACK)
        };
        let fits = payload(1380);
        translated(
            &bench.expect("1,420 bytes", &fits.build(), REDIRECT, Reason::ForwardHit)?,
            &fits,
        )?;
        for frame in [
            payload(1381).build(),
            Frame {
                payload: vec![7; 1393],
                ..Frame::udp(b"")
            }
            .build(),
        ] {
            let out = bench.expect("1,421 bytes, DF", &frame, REDIRECT, Reason::TooBigAnswered)?;
            answered(&out, &frame, 3, 4)?;
            ensure!(
                out.bytes[14 + 26..14 + 28] == 1420_u16.to_be_bytes(),
                "the MTU of the tunnel"
            );
        }
        let may_fragment = Frame {
            fragment: 0,
            payload: vec![7; 1393],
            ..Frame::udp(b"")
        };
        let out = bench.run(&may_fragment.build())?;
        ensure!(
            out.verdict == REDIRECT && out.reasons.contains(&Reason::Oversized),
            "{:?}",
            out.reasons
        );
        let mut limited = 0;
        for _ in 0..1000 {
            let out = bench.run(&payload(1381).build())?;
            limited += u32::from(out.verdict == DROP && out.reasons == [Reason::IcmpLimited]);
        }
        ensure!(limited > 500, "errors are rate-limited: {limited} of 1,000");
        Ok(())
    })
}

/// An ICMP error to the public address, quoting what the client got from us.
fn error_frame(kind: [u8; 2], mtu: u16, quoted: &Frame) -> Vec<u8> {
    let quote = &quoted.build()[14..];
    let quote = &quote[..quote.len().min(28)];
    let [high, low] = mtu.to_be_bytes();
    let mut icmp = [&[kind[0], kind[1], 0, 0, 0, 0, high, low], quote].concat();
    let check = internet_checksum(&icmp);
    icmp[2..4].copy_from_slice(&check);
    let mut frame = Frame {
        saddr: [44, 130, 0, 9],
        ..Frame::udp(b"")
    }
    .build()[..34]
        .to_vec();
    let total = u16::try_from(20 + icmp.len()).unwrap().to_be_bytes();
    frame[16..18].copy_from_slice(&total);
    frame[23] = 1;
    frame[24..26].fill(0);
    let check = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&check);
    frame.extend(icmp);
    frame
}

#[test]
fn icmp_errors_about_a_flow_are_translated_toward_home() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        for sent in [Frame::tcp(SYN), Frame::udp(b"hello")] {
            let seen = translated(&bench.run(&sent.build())?, &sent)?;
            // What the client got in answer, and quotes.
            let got = Frame {
                saddr: PUBLIC,
                daddr: sent.saddr,
                sport: PORT,
                dport: sent.sport,
                l4: match sent.l4 {
                    L4::Tcp { .. } => L4::Tcp {
                        flags: ACK,
                        options: vec![],
                    },
                    L4::Udp { checksum } => L4::Udp { checksum },
                },
                payload: vec![],
                ..Frame::tcp(0)
            };
            for (kind, mtu) in [([3, 3], 0), ([3, 1], 0), ([3, 4], 1400), ([11, 0], 0)] {
                let out = bench.expect(
                    "error",
                    &error_frame(kind, mtu, &got),
                    REDIRECT,
                    Reason::IcmpToHome,
                )?;
                let ip = &out.bytes[14..];
                ensure!(
                    ip[12..16] == SNAT && ip[16..20] == BACKEND && ip[8] == 59,
                    "outer header: {ip:?}"
                );
                let right = |bytes: &[u8]| matches!(internet_checksum(bytes), [0, 0] | [0xff, 0xff]);
                ensure!(
                    right(&ip[..20]) && right(&ip[20..]) && right(&ip[28..48]),
                    "checksums: {ip:?}"
                );
                let inner = &ip[28..];
                ensure!(
                    inner[12..16] == BACKEND && inner[16..20] == SNAT,
                    "inner addresses: {inner:?}"
                );
                let ports = [9000_u16.to_be_bytes(), seen.sport.to_be_bytes()].concat();
                ensure!(inner[20..24] == ports, "inner ports: {inner:?}");
                if matches!(sent.l4, L4::Udp { .. }) {
                    ensure!(
                        read(inner, 0).l4_ok,
                        "the quoted UDP checksum is what the backend had sent"
                    );
                }
            }
            let absurd = error_frame([3, 4], 68, &got);
            bench.expect("absurd MTU", &absurd, DROP, Reason::IcmpAbsurd)?;
            let other = Frame {
                dport: 1,
                ..got.clone()
            };
            bench.expect(
                "about no flow",
                &error_frame([3, 3], 0, &other),
                PASS,
                Reason::IcmpOther,
            )?;
            bench.expect("redirect", &error_frame([5, 1], 0, &got), PASS, Reason::IcmpOther)?;
        }
        Ok(())
    })
}

#[test]
fn fragments_follow_their_first() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let later = Frame {
            fragment: 0x00b9,
            payload: vec![9; 100],
            ..Frame::udp(b"")
        };
        bench.expect("before the first", &later.build(), PASS, Reason::Fragment)?;
        // A first fragment: its UDP length counts bytes that are not in it.
        let mut bytes = Frame {
            fragment: 0x2000,
            payload: vec![8; 64],
            ..Frame::udp(b"")
        }
        .build();
        bytes[38..40].copy_from_slice(&2000_u16.to_be_bytes());
        let out = bench.expect("first", &bytes, REDIRECT, Reason::ForwardNew)?;
        let seen = read(&out.bytes, 14);
        ensure!(
            seen.saddr == SNAT && seen.daddr == BACKEND && seen.ip_ok,
            "{seen:?}"
        );
        let bytes = later.build();
        let out = bench.expect("later", &bytes, REDIRECT, Reason::FragmentForwarded)?;
        let seen = read(&out.bytes, 14);
        ensure!(
            seen.saddr == SNAT && seen.daddr == BACKEND && seen.ip_ok && seen.ttl == 59,
            "{seen:?}"
        );
        ensure!(
            out.bytes[34..] == bytes[34..],
            "what looks like ports in a later fragment is payload"
        );
        let mut other = later.build();
        other[18] ^= 1;
        let check = internet_checksum(&[&other[14..24], &[0, 0], &other[26..34]].concat());
        other[24..26].copy_from_slice(&check);
        bench.expect("of another datagram", &other, PASS, Reason::Fragment)?;
        Ok(())
    })
}

#[test]
fn a_flow_is_never_passed_when_the_tunnel_is_gone() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        bench.maps.links.set(
            2,
            LinkEntry {
                mtu: 1420,
                mss: 1380,
                ..LinkEntry::default()
            },
            0,
        )?;
        bench.expect("data", &Frame::tcp(ACK).build(), DROP, Reason::TunnelDown)?;
        Ok(())
    })
}

#[test]
fn without_a_living_daemon_only_existing_flows_go_on() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        let long_ago = clock::now()?.saturating_sub(61_000_000_000).max(1);
        bench.maps.control.set(
            0,
            Control {
                heartbeat: long_ago,
                max_age: 60_000_000_000,
            },
            0,
        )?;
        bench.expect("data", &Frame::tcp(ACK).build(), REDIRECT, Reason::ForwardHit)?;
        let other = Frame {
            sport: 40_001,
            ..Frame::tcp(SYN)
        };
        bench.expect("another SYN", &other.build(), PASS, Reason::ControlStale)?;
        let udp = Frame::udp(b"hello").build();
        bench.expect("a datagram", &udp, PASS, Reason::ControlStale)?;
        bench.maps.control.set(
            0,
            Control {
                heartbeat: clock::now()?,
                max_age: 60_000_000_000,
            },
            0,
        )?;
        bench.expect("its next one stays where it went", &udp, PASS, Reason::HandedOver)?;
        bench.expect("the SYN again", &other.build(), REDIRECT, Reason::ForwardNew)?;
        Ok(())
    })
}

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

#[test]
fn tuples_of_live_sockets_are_left_to_the_stack() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let namespace = std::process::id();
        let _ = namespace;
        nix::sched::setns(
            std::fs::File::open("/proc/thread-self/ns/net")?,
            nix::sched::CloneFlags::CLONE_NEWNET,
        )?;
        // The public address and the client's, both on loopback: sockets between them own real tuples.
        for command in [
            "link set lo up",
            "addr add 44.128.0.2/32 dev lo",
            "addr add 44.128.7.7/32 dev lo",
        ] {
            let status = std::process::Command::new("ip")
                .args(command.split(' '))
                .status()?;
            ensure!(status.success(), "ip {command}");
        }
        let listener = std::net::TcpListener::bind(("44.128.0.2", PORT))?;
        bench.expect(
            "listener only",
            &Frame::tcp(SYN).build(),
            REDIRECT,
            Reason::ForwardNew,
        )?;

        let connect = |port: u16| -> Result<std::net::TcpStream> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&std::net::SocketAddr::from(([44, 128, 7, 7], port)).into())?;
            socket.connect(&std::net::SocketAddr::from((PUBLIC, PORT)).into())?;
            Ok(socket.into())
        };
        let client = connect(44_000)?;
        let (server, _) = listener.accept()?;
        let syn = Frame {
            sport: 44_000,
            ..Frame::tcp(SYN)
        }
        .build();
        bench.expect("ESTABLISHED", &syn, PASS, Reason::OwnedBySocket)?;
        // The server closes first, so TIME_WAIT is on its side: the tuple of the packet.
        drop(server);
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.expect("TIME_WAIT", &syn, REDIRECT, Reason::ForwardNew)?;

        let unconnected = std::net::UdpSocket::bind(("44.128.0.2", PORT))?;
        bench.expect(
            "unconnected UDP socket",
            &Frame::udp(b"x").build(),
            REDIRECT,
            Reason::ForwardNew,
        )?;
        unconnected.connect(("44.128.7.7", 45_000))?;
        let frame = Frame {
            sport: 45_000,
            ..Frame::udp(b"x")
        }
        .build();
        bench.expect("connected UDP socket", &frame, PASS, Reason::OwnedBySocket)?;
        Ok(())
    })
}

#[test]
fn a_handed_over_client_stays_in_userspace() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let key = FlowKey {
            saddr: [44, 128, 7, 7],
            daddr: PUBLIC,
            sport: 40_000_u16.to_be_bytes(),
            dport: PORT.to_be_bytes(),
            proto: 17,
            zone: 1,
            pad: [0; 2],
        };
        let frame = Frame::udp(b"x").build();
        bench.maps.handed.insert(key, clock::now()?, 0)?;
        bench.expect("handed over", &frame, PASS, Reason::HandedOver)?;
        bench
            .maps
            .handed
            .insert(key, clock::now()?.saturating_sub(31_000_000_000), 0)?;
        bench.expect("half a minute later", &frame, REDIRECT, Reason::ForwardNew)?;
        Ok(())
    })
}
