//! What the generator is told to make for a contender.

use exposer_common::service::L4Proto;

use crate::generator::feed::{FRAME, Feed};
use crate::lanes::{HOME, Kind, PUBLIC, WAN_MAC};

/// Bytes of a frame, as the kernel's structs have it.
pub const FRAME_U32: u32 = 64;
/// First public port of the services.
pub const SERVED: u16 = 20_000;
/// First port of the packets that are none of ours.
pub const UNMANAGED: u16 = 40_000;
/// TCP's SYN.
pub const SYN: u8 = 0x02;
/// TCP's ACK.
pub const ACK: u8 = 0x10;

const _: () = assert!(FRAME == 64);

/// The recipe of `flows` flows for a contender. `flags` are those of TCP.
pub fn recipe(kind: Kind, proto: L4Proto, flags: u8, flows: u32) -> Feed {
    // A router without NAT is sent what is for home, the others what is for their own address.
    let (to, port) = match kind {
        Kind::Forwarding => (HOME, SERVED),
        Kind::Unmanaged => (HOME, UNMANAGED),
        Kind::Floor | Kind::Bare | Kind::Ours | Kind::Nftables => (PUBLIC, SERVED),
    };
    let frame = frame(to, proto, flags);
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(frame.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let pseudo = sum(&to) + u32::from(proto as u8) + (FRAME_U32 - 34);
    Feed {
        words,
        flows,
        ip_sum: sum(&frame[14..34]),
        l4_sum: pseudo + sum(&frame[34..]),
        first_port: port.into(),
        tcp: u32::from(proto == L4Proto::Tcp),
        ..Feed::default()
    }
}

/// The frame without source, ports and checksums.
fn frame(to: [u8; 4], proto: L4Proto, flags: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&WAN_MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    // IPv4 without options, don't fragment, TTL 64.
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, proto as u8]);
    frame[30..34].copy_from_slice(&to);
    match proto {
        L4Proto::Udp => frame[38..40].copy_from_slice(&30_u16.to_be_bytes()),
        // Sequence and acknowledgment 1, header of 20 bytes, a window of 65,535.
        L4Proto::Tcp => {
            frame[38..50].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff]);
        }
    }
    frame
}

/// One's complement sum, not folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.as_chunks::<2>().0;
    words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum()
}
