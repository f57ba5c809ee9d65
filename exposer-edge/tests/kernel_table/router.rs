//! What a router owes: time exceeded, fragmentation needed, ICMP errors about flows, fragments.

use crate::bench::*;
use crate::packet::{ACK, Frame, L4, SYN, read};
use anyhow::{Result, ensure};
use exposer_common::net::checksum::internet_checksum;
use exposer_common::verdict::Reason;

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
