//! The bytes of every message, frozen. A test that fails here means that old and new programs no longer understand
//! each other: append a variant or a message instead, or raise the protocol version.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::fmt::{Debug, Write as _};
use std::net::IpAddr;

use bincode::{Decode, Encode};
use exposer_common::model::{
    ClientIp, PortRecord, Protocol, ServiceId, ServicePort, ServiceRecord, TargetKind,
};
use exposer_common::proto::auth::{Token, Transcript};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{
    Ack, AgentMessage, Challenge, Change, Delta, EdgeMessage, ErrorCode, ErrorMessage, Heartbeat, Hello,
    Path, PortOutcome, Proof, Refusal, RefusalCode, ServiceOutcome, Snapshot, Welcome,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// `message` has exactly this body, its length in front, and that frame is exactly `message`. White space in `body` is
/// for people.
#[track_caller]
fn pin<M: Encode + Decode<()> + PartialEq + Debug>(message: &M, body: &str) {
    let body: String = body.split_whitespace().collect();
    let expected = format!("{:08x}{body}", body.len() / 2);
    let frame = encode(message).unwrap();
    assert_eq!(hex(&frame), expected, "{message:?}");
    let mut decoder = FrameDecoder::new();
    decoder.push(&frame);
    let (decoded, raw) = decoder.next::<M>().unwrap().unwrap();
    assert_eq!(&decoded, message);
    assert_eq!(raw.as_slice(), frame);
}

fn id() -> ServiceId {
    ServiceId {
        namespace: "ns".into(),
        name: "svc".into(),
    }
}

fn record() -> ServiceRecord {
    ServiceRecord {
        id: id(),
        uid: "u1".into(),
        created: 1_700_000_000,
        subdomain: "game".into(),
        ports: vec![PortRecord {
            public_port: 25_565,
            tcp: Some(ServicePort {
                service_port: 80,
                target_port: Some(8_080),
                node_port: None,
            }),
            udp: None,
        }],
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        node_addresses: vec![IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])],
        target: TargetKind::NodePort,
        client_ip: ClientIp::ProxyV2,
        idle_timeout: Some(300),
    }
}

/// [`record`] on the wire, field by field.
const RECORD: &str = "
    02 6e73  03 737663  02 7531  fc 00f15365  04 67616d65
    01  fb dd63  01 50 01 fb 901f 00  00
    01 00 0a60000a
    01 01 fd000000000000000000000000000001
    02  04  01 fb 2c01";

#[test]
fn agent_messages() {
    pin(
        &AgentMessage::Hello(Hello {
            min_version: 1,
            max_version: 1,
            agent: "home".into(),
            nonce: [0xa1; 32],
            software: "agent/1".into(),
            capabilities: vec!["x".into()],
        }),
        &format!(
            "00 01 01 04 686f6d65 {} 07 6167656e742f31 01 01 78",
            "a1".repeat(32)
        ),
    );
    pin(
        &AgentMessage::Proof(Proof { mac: [0x5a; 32] }),
        &format!("01 {}", "5a".repeat(32)),
    );
    pin(
        &AgentMessage::Snapshot(Snapshot {
            epoch: 0x0102_0304_0506_0708,
            revision: 1,
            part: 0,
            last: true,
            services: vec![record()],
        }),
        &format!("02 fd 0807060504030201 01 00 01 01 {RECORD}"),
    );
    pin(
        &AgentMessage::Delta(Delta {
            epoch: 7,
            revision: 251,
            changes: vec![Change::Delete(id()), Change::Update(record())],
        }),
        &format!("03 07 fb fb00 02  01 02 6e73 03 737663  00 {RECORD}"),
    );
    pin(&AgentMessage::Heartbeat(Heartbeat { revision: 9 }), "04 09");
    pin(
        &AgentMessage::Error(ErrorMessage {
            code: ErrorCode::ShuttingDown,
            text: "bye".into(),
        }),
        "05 09 03 627965",
    );
}

#[test]
fn edge_messages() {
    pin(
        &EdgeMessage::Challenge(Challenge {
            version: 1,
            nonce: [0xc3; 32],
        }),
        &format!("00 01 {}", "c3".repeat(32)),
    );
    pin(
        &EdgeMessage::Welcome(Welcome {
            mac: [0x3c; 32],
            software: "edge/1".into(),
            public_addresses: vec![IpAddr::from([203, 0, 113, 7])],
            capabilities: vec![],
        }),
        &format!("01 {} 06 656467652f31 01 00 cb007107 00", "3c".repeat(32)),
    );
    pin(
        &EdgeMessage::Ack(Ack {
            epoch: 7,
            revision: 2,
            outcomes: vec![ServiceOutcome {
                id: id(),
                refused: Some(Refusal {
                    code: RefusalCode::SubdomainTaken,
                    text: "no".into(),
                }),
                ports: vec![PortOutcome {
                    requested: 22,
                    protocol: Protocol::Udp,
                    public_port: Some(30_000),
                    path: Some(Path::Userspace),
                    refused: Some(Refusal {
                        code: RefusalCode::PortReserved,
                        text: "ssh".into(),
                    }),
                }],
            }],
        }),
        "02 07 02 01 02 6e73 03 737663 01 01 02 6e6f 01 16 01 01 fb 3075 01 01 01 03 03 737368",
    );
    pin(
        &EdgeMessage::Heartbeat(Heartbeat { revision: 70_000 }),
        "03 fc 70110100",
    );
    pin(
        &EdgeMessage::Error(ErrorMessage {
            code: ErrorCode::Malformed,
            text: String::new(),
        }),
        "04 00 00",
    );
}

/// The length stands in front, in big-endian order, and does not count itself.
#[test]
fn frame() {
    let message = AgentMessage::Heartbeat(Heartbeat { revision: 9 });
    assert_eq!(encode(&message).unwrap(), [0, 0, 0, 2, 4, 9]);
}

/// Every code and kind by its number: the order of an enum is its wire format.
#[test]
fn numbers_of_codes() {
    let errors = [
        (ErrorCode::Malformed, "malformed"),
        (ErrorCode::FrameTooLarge, "frame-too-large"),
        (ErrorCode::Version, "version"),
        (ErrorCode::Unauthenticated, "unauthenticated"),
        (ErrorCode::AgentName, "agent-name"),
        (ErrorCode::OutOfOrder, "out-of-order"),
        (ErrorCode::Limit, "limit"),
        (ErrorCode::Timeout, "timeout"),
        (ErrorCode::Replaced, "replaced"),
        (ErrorCode::ShuttingDown, "shutting-down"),
        (ErrorCode::AccessChanged, "access-changed"),
    ];
    for (number, (code, name)) in errors.into_iter().enumerate() {
        pin(&code, &format!("{number:02x}"));
        assert_eq!(code.as_str(), name);
    }
    let refusals = [
        RefusalCode::InvalidRecord,
        RefusalCode::SubdomainTaken,
        RefusalCode::PortMoved,
        RefusalCode::PortReserved,
        RefusalCode::PortsExhausted,
        RefusalCode::NoTarget,
        RefusalCode::ProgramFailed,
        RefusalCode::PathDowngraded,
        RefusalCode::TunnelDown,
        RefusalCode::NotAllowed,
    ];
    for (number, code) in refusals.into_iter().enumerate() {
        pin(&code, &format!("{number:02x}"));
    }
    for (number, kind) in [
        TargetKind::Auto,
        TargetKind::ClusterIp,
        TargetKind::NodePort,
        TargetKind::PodIp,
    ]
    .into_iter()
    .enumerate()
    {
        pin(&kind, &format!("{number:02x}"));
    }
    for (number, kind) in [
        ClientIp::Auto,
        ClientIp::Transparent,
        ClientIp::Snat,
        ClientIp::ProxyV1,
        ClientIp::ProxyV2,
    ]
    .into_iter()
    .enumerate()
    {
        pin(&kind, &format!("{number:02x}"));
    }
    pin(&Protocol::Tcp, "00");
    pin(&Protocol::Udp, "01");
    pin(&Path::Kernel, "00");
    pin(&Path::Userspace, "01");
}

/// The proofs of a fixed token and transcript, computed independently (Python's hmac and hashlib).
#[test]
fn proofs() {
    let token = Token::from_bytes(b"0123456789abcdef0123456789abcdef\n").unwrap();
    let transcript = Transcript::new(b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x09challenge");
    let agent = token.prove_agent(&transcript);
    assert_eq!(
        hex(&agent),
        "7104491528c6419fc7d0f7ad7e8240969e7a52a2a35651e16fc7fbb4bf12ce6f"
    );
    assert_eq!(
        hex(&token.prove_edge(&transcript, &agent)),
        "d0984d8865300ad1e4f0af258c6ed0d79bc1a83216bbc1f3dd0da1cc373ee558"
    );
}
