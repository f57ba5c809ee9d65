//! What is left to the stack, untouched.

use crate::bench::*;
use crate::packet::{ACK, FIN, Frame, L4, RST, SYN};
use anyhow::{Result, ensure};
use exposer_common::verdict::Reason;

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
