//! Whatever a message holds and however its bytes are cut, the peer reads the same message; and whatever arrives instead
//! is an error, never a panic and never a large allocation.
#![expect(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test code")]

use std::net::IpAddr;

use exposer_common::model::{
    ClientIp, PortRecord, Protocol, ServiceId, ServicePort, ServiceRecord, TargetKind,
};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::error::{CodecError, MAX_ERROR_TEXT, PartsError};
use exposer_common::proto::message::{
    Ack, AgentMessage, Challenge, Change, Delta, EdgeMessage, ErrorCode, ErrorMessage, Heartbeat, Hello,
    Path, PortOutcome, Proof, Refusal, RefusalCode, ServiceOutcome, Snapshot, Welcome,
};
use exposer_common::proto::parts::{PART_ITEMS, ack_parts, delta_parts, snapshot_parts};
use exposer_common::proto::{MAX_FRAME, MAX_HANDSHAKE_FRAME};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    ".{0,40}"
}

fn id() -> impl Strategy<Value = ServiceId> {
    (text(), text()).prop_map(|(namespace, name)| ServiceId { namespace, name })
}

fn side() -> impl Strategy<Value = ServicePort> {
    (any::<u16>(), option::of(any::<u16>()), option::of(any::<u16>())).prop_map(
        |(service_port, target_port, node_port)| ServicePort {
            service_port,
            target_port,
            node_port,
        },
    )
}

fn port() -> impl Strategy<Value = PortRecord> {
    (any::<u16>(), option::of(side()), option::of(side())).prop_map(|(public_port, tcp, udp)| PortRecord {
        public_port,
        tcp,
        udp,
    })
}

fn target() -> impl Strategy<Value = (TargetKind, ClientIp)> {
    (
        prop::sample::select(vec![
            TargetKind::Auto,
            TargetKind::ClusterIp,
            TargetKind::NodePort,
            TargetKind::PodIp,
        ]),
        prop::sample::select(vec![
            ClientIp::Auto,
            ClientIp::Transparent,
            ClientIp::Snat,
            ClientIp::ProxyV1,
            ClientIp::ProxyV2,
        ]),
    )
}

fn record() -> impl Strategy<Value = ServiceRecord> {
    (
        (id(), text(), any::<u64>(), text()),
        (
            vec(port(), 0..20),
            option::of(any::<IpAddr>()),
            vec(any::<IpAddr>(), 0..5),
        ),
        target(),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(
                (id, uid, created, subdomain),
                (ports, cluster_ip, node_addresses),
                (target, client_ip),
                idle_timeout,
            )| {
                ServiceRecord {
                    id,
                    uid,
                    created,
                    subdomain,
                    ports,
                    cluster_ip,
                    node_addresses,
                    target,
                    client_ip,
                    idle_timeout,
                }
            },
        )
}

fn error() -> impl Strategy<Value = ErrorMessage> {
    (
        prop::sample::select(vec![
            ErrorCode::Malformed,
            ErrorCode::Unauthenticated,
            ErrorCode::Replaced,
        ]),
        text(),
    )
        .prop_map(|(code, text)| ErrorMessage { code, text })
}

fn agent_message() -> impl Strategy<Value = AgentMessage> {
    prop_oneof![
        (
            any::<(u16, u16)>(),
            text(),
            any::<[u8; 32]>(),
            text(),
            vec(text(), 0..4)
        )
            .prop_map(
                |((min_version, max_version), agent, nonce, software, capabilities)| {
                    AgentMessage::Hello(Hello {
                        min_version,
                        max_version,
                        agent,
                        nonce,
                        software,
                        capabilities,
                    })
                }
            ),
        any::<[u8; 32]>().prop_map(|mac| AgentMessage::Proof(Proof { mac })),
        (any::<(u64, u64, u32, bool)>(), vec(record(), 0..6)).prop_map(
            |((epoch, revision, part, last), services)| {
                AgentMessage::Snapshot(Snapshot {
                    epoch,
                    revision,
                    part,
                    last,
                    services,
                })
            }
        ),
        (
            any::<(u64, u64)>(),
            vec(
                prop_oneof![record().prop_map(Change::Update), id().prop_map(Change::Delete)],
                0..6
            )
        )
            .prop_map(|((epoch, revision), changes)| AgentMessage::Delta(Delta {
                epoch,
                revision,
                changes
            })),
        any::<u64>().prop_map(|revision| AgentMessage::Heartbeat(Heartbeat { revision })),
        error().prop_map(AgentMessage::Error),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (
        prop::sample::select(vec![RefusalCode::InvalidRecord, RefusalCode::TunnelDown]),
        text(),
    )
        .prop_map(|(code, text)| Refusal { code, text })
}

fn outcome() -> impl Strategy<Value = ServiceOutcome> {
    let port = (
        (
            any::<u16>(),
            prop::sample::select(Protocol::ALL.to_vec()),
            option::of(any::<u16>()),
        ),
        (
            option::of(prop::sample::select(vec![Path::Kernel, Path::Userspace])),
            option::of(refusal()),
        ),
    )
        .prop_map(
            |((requested, protocol, public_port), (path, refused))| PortOutcome {
                requested,
                protocol,
                public_port,
                path,
                refused,
            },
        );
    (id(), option::of(refusal()), vec(port, 0..6)).prop_map(|(id, refused, ports)| ServiceOutcome {
        id,
        refused,
        ports,
    })
}

fn edge_message() -> impl Strategy<Value = EdgeMessage> {
    prop_oneof![
        any::<(u16, [u8; 32])>()
            .prop_map(|(version, nonce)| EdgeMessage::Challenge(Challenge { version, nonce })),
        (
            any::<[u8; 32]>(),
            text(),
            vec(any::<IpAddr>(), 0..4),
            vec(text(), 0..4)
        )
            .prop_map(|(mac, software, public_addresses, capabilities)| {
                EdgeMessage::Welcome(Welcome {
                    mac,
                    software,
                    public_addresses,
                    capabilities,
                })
            }),
        (any::<(u64, u64)>(), vec(outcome(), 0..6)).prop_map(|((epoch, revision), outcomes)| {
            EdgeMessage::Ack(Ack {
                epoch,
                revision,
                outcomes,
            })
        }),
        any::<u64>().prop_map(|revision| EdgeMessage::Heartbeat(Heartbeat { revision })),
        error().prop_map(EdgeMessage::Error),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_survive_any_chunking(
        agent in vec(agent_message(), 1..4),
        edge in vec(edge_message(), 1..4),
        chunk in 1_usize..200,
    ) {
        let stream: Vec<u8> = agent.iter().flat_map(|message| encode(message).unwrap()).collect();
        let mut decoder = FrameDecoder::new();
        let mut read = Vec::new();
        for bytes in stream.chunks(chunk) {
            decoder.push(bytes);
            while let Some((message, _)) = decoder.next::<AgentMessage>().unwrap() {
                read.push(message);
            }
        }
        prop_assert_eq!(&read, &agent);
        prop_assert!(decoder.finish().is_ok());

        let stream: Vec<u8> = edge.iter().flat_map(|message| encode(message).unwrap()).collect();
        let mut decoder = FrameDecoder::new();
        decoder.push(&stream);
        for message in &edge {
            prop_assert_eq!(&decoder.next::<EdgeMessage>().unwrap().unwrap().0, message);
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
        frame.extend(&bytes);
        let mut decoder = FrameDecoder::new();
        decoder.push(&frame);
        if let Ok(Some((message, raw))) = decoder.next::<AgentMessage>() {
            // What is accepted is canonical: there is no second frame for the same message.
            let again = encode(&message).unwrap();
            prop_assert_eq!(again.as_slice(), raw.as_slice());
        }
    }

    #[test]
    fn a_flipped_byte_never_gives_the_same_message(message in agent_message(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let frame = encode(&message).unwrap();
        let mut damaged = frame.clone();
        let at = at.index(frame.len());
        damaged[at] ^= flip;
        let mut decoder = FrameDecoder::new();
        decoder.push(&damaged);
        if let Ok(Some((other, _))) = decoder.next::<AgentMessage>() {
            prop_assert_ne!(other, message);
        }
    }
}

fn plain(name: &str) -> ServiceRecord {
    ServiceRecord {
        id: ServiceId {
            namespace: "default".into(),
            name: name.into(),
        },
        uid: "6e0c9f7e-6f0a-4f4e-9df1-2d1f3a4b5c6d".into(),
        created: 1_700_000_000,
        subdomain: name.into(),
        ports: vec![PortRecord {
            public_port: 25_565,
            tcp: Some(ServicePort {
                service_port: 25_565,
                target_port: None,
                node_port: None,
            }),
            udp: None,
        }],
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        node_addresses: vec![],
        target: TargetKind::Auto,
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

fn hello() -> AgentMessage {
    AgentMessage::Hello(Hello {
        min_version: 1,
        max_version: 1,
        agent: "home".into(),
        nonce: [7; 32],
        software: "exposer-agent 0.1.0".into(),
        capabilities: vec!["a".into(), "b".into()],
    })
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn error_of(bytes: &[u8]) -> CodecError {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    decoder.next::<AgentMessage>().unwrap_err()
}

#[test]
fn a_frame_cut_anywhere_waits_and_then_reports_the_cut() {
    let messages = [
        hello(),
        AgentMessage::Snapshot(Snapshot {
            epoch: 1,
            revision: 1,
            part: 0,
            last: true,
            services: vec![plain("a")],
        }),
        AgentMessage::Delta(Delta {
            epoch: 1,
            revision: 2,
            changes: vec![Change::Update(plain("b"))],
        }),
    ];
    for message in &messages {
        let frame = encode(message).unwrap();
        for length in 0..frame.len() {
            let mut decoder = FrameDecoder::new();
            decoder.push(&frame[..length]);
            assert_eq!(
                decoder.next::<AgentMessage>(),
                Ok(None),
                "cut after {length} bytes"
            );
            let expected = if length == 0 {
                Ok(())
            } else {
                Err(CodecError::Cut { received: length })
            };
            assert_eq!(decoder.finish(), expected);
        }
        // The body cut, and the length made to fit it: never a message.
        let body = &frame[4..];
        for length in 1..body.len() {
            assert!(
                matches!(error_of(&framed(&body[..length])), CodecError::Malformed { .. }),
                "a body of {length} of {} bytes was taken",
                body.len()
            );
        }
    }
}

#[test]
fn lengths_over_the_limit_are_refused_at_the_fourth_byte() {
    for length in [MAX_FRAME + 1, 1 << 24, u32::MAX] {
        let error = error_of(&length.to_be_bytes());
        assert_eq!(
            error,
            CodecError::TooLarge {
                length,
                limit: MAX_FRAME
            }
        );
        assert_eq!(ErrorMessage::from(&error).code, ErrorCode::FrameTooLarge);
    }
    let mut decoder = FrameDecoder::with_limit(MAX_HANDSHAKE_FRAME);
    decoder.push(&(MAX_HANDSHAKE_FRAME + 1).to_be_bytes());
    assert!(matches!(
        decoder.next::<AgentMessage>(),
        Err(CodecError::TooLarge { .. })
    ));

    let mut decoder = FrameDecoder::new();
    decoder.push(&MAX_FRAME.to_be_bytes());
    assert_eq!(
        decoder.next::<AgentMessage>(),
        Ok(None),
        "the limit itself is allowed"
    );
    assert_eq!(decoder.buffered(), 4, "nothing is set aside for a claimed length");
}

#[test]
fn an_error_is_final_and_nothing_more_is_stored() {
    let mut decoder = FrameDecoder::new();
    decoder.push(&u32::MAX.to_be_bytes());
    let first = decoder.next::<AgentMessage>().unwrap_err();
    decoder.push(&encode(&hello()).unwrap());
    assert_eq!(decoder.next::<AgentMessage>().unwrap_err(), first);
    assert_eq!(decoder.finish(), Err(first));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn trailing_empty_and_other_bytes_are_named() {
    let mut body = encode(&hello()).unwrap()[4..].to_vec();
    body.extend([0, 0, 0]);
    assert_eq!(error_of(&framed(&body)), CodecError::Trailing { extra: 3 });
    assert_eq!(error_of(&[0; 4]), CodecError::Empty);
    for (bytes, name) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP/2"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
    ] {
        assert_eq!(error_of(bytes), CodecError::OtherProtocol(name));
    }
    // A number of a message that does not exist, and a message of the other direction.
    assert!(matches!(error_of(&framed(&[6])), CodecError::Malformed { .. }));
    let challenge = encode(&EdgeMessage::Challenge(Challenge {
        version: 1,
        nonce: [0; 32],
    }))
    .unwrap();
    assert!(matches!(error_of(&challenge), CodecError::Malformed { .. }));
}

/// A varint has a longer form of the same value: bincode reads it, this codec does not.
#[test]
fn non_minimal_integers_are_refused() {
    assert_eq!(error_of(&framed(&[4, 251, 9, 0])), CodecError::NotCanonical);
    assert_eq!(error_of(&framed(&[4, 252, 9, 0, 0, 0])), CodecError::NotCanonical);
    assert_eq!(error_of(&framed(&[251, 4, 0, 9])), CodecError::NotCanonical);
    let mut decoder = FrameDecoder::new();
    decoder.push(&framed(&[4, 9]));
    assert_eq!(
        decoder.next::<AgentMessage>().unwrap().unwrap().0,
        AgentMessage::Heartbeat(Heartbeat { revision: 9 })
    );
}

/// A list that claims billions of elements is refused by its claim, not by running out of memory.
#[test]
fn hostile_list_lengths() {
    for claim in [
        &[253, 255, 255, 255, 255, 255, 255, 255, 127][..],
        &[252, 255, 255, 255, 255],
        &[252, 0, 0, 16, 0],
    ] {
        // Delta{epoch 1, revision 1, changes: claim…}
        let mut body = vec![3, 1, 1];
        body.extend(claim);
        assert!(
            matches!(error_of(&framed(&body)), CodecError::Malformed { .. }),
            "{claim:?}"
        );
        // Error{code, text: claim…}
        let mut body = vec![5, 0];
        body.extend(claim);
        assert!(
            matches!(error_of(&framed(&body)), CodecError::Malformed { .. }),
            "{claim:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert!(matches!(
        error_of(&framed(&[5, 0, 2, 0xff, 0xfe])),
        CodecError::Malformed { .. }
    ));
}

#[test]
fn our_own_messages_have_the_limit_too() {
    let message = AgentMessage::Error(ErrorMessage {
        code: ErrorCode::Malformed,
        text: "x".repeat(MAX_FRAME as usize),
    });
    assert!(matches!(
        encode(&message),
        Err(CodecError::MessageTooLarge { .. })
    ));
    // Small on the wire, but more than the peer's decoder takes: refused here, not there.
    let delete = Change::Delete(ServiceId {
        namespace: String::new(),
        name: String::new(),
    });
    let message = AgentMessage::Delta(Delta {
        epoch: 1,
        revision: 1,
        changes: vec![delete; 100_000],
    });
    assert!(matches!(encode(&message), Err(CodecError::Encode(_))));
}

#[test]
fn large_snapshots_are_split_and_lose_nothing() {
    let records: Vec<_> = (0..30_000)
        .map(|number| plain(&format!("service-{number}")))
        .collect();
    let parts = snapshot_parts(5, 6, records.clone()).unwrap();
    assert!(parts.len() > 2, "{} parts", parts.len());
    let mut seen = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        assert_eq!((part.epoch, part.revision, part.part), (5, 6, index as u32));
        assert_eq!(part.last, index + 1 == parts.len());
        let frame = encode(&AgentMessage::Snapshot(part.clone())).unwrap();
        assert!(frame.len() <= MAX_FRAME as usize + 4);
        seen.extend(part.services.clone());
    }
    assert_eq!(seen, records);

    // Many ports: the bytes bind, not the number of elements.
    let mut wide = plain("wide");
    wide.ports = (1..=256)
        .map(|port| PortRecord {
            public_port: port,
            ..wide.ports[0]
        })
        .collect();
    let parts = snapshot_parts(1, 1, vec![wide; 2_000]).unwrap();
    assert!(parts.len() > 1 && parts.iter().all(|part| part.services.len() < PART_ITEMS));
    for part in parts {
        encode(&AgentMessage::Snapshot(part)).unwrap();
    }
}

#[test]
fn an_empty_snapshot_is_one_last_part() {
    let parts = snapshot_parts(1, 2, []).unwrap();
    assert_eq!(
        parts,
        [Snapshot {
            epoch: 1,
            revision: 2,
            part: 0,
            last: true,
            services: vec![]
        }]
    );
    assert_eq!(delta_parts(1, 2, []).unwrap(), []);
    assert_eq!(
        ack_parts(1, 2, []).unwrap(),
        [Ack {
            epoch: 1,
            revision: 2,
            outcomes: vec![]
        }]
    );
}

#[test]
fn deltas_and_acks_are_split() {
    let changes: Vec<_> = (0..10_000)
        .map(|number| {
            Change::Delete(ServiceId {
                namespace: "n".into(),
                name: number.to_string(),
            })
        })
        .collect();
    let parts = delta_parts(9, 40, changes.clone()).unwrap();
    assert_eq!(
        parts.iter().map(|part| part.revision).collect::<Vec<_>>(),
        [40, 41, 42]
    );
    assert_eq!(
        parts
            .iter()
            .flat_map(|part| part.changes.clone())
            .collect::<Vec<_>>(),
        changes
    );
    for part in parts {
        encode(&AgentMessage::Delta(part)).unwrap();
    }
    let outcomes = vec![
        ServiceOutcome {
            id: ServiceId {
                namespace: "n".into(),
                name: "s".into()
            },
            refused: Some(Refusal {
                code: RefusalCode::NoTarget,
                text: "y".repeat(2_000)
            }),
            ports: vec![],
        };
        1_000
    ];
    let parts = ack_parts(9, 40, outcomes).unwrap();
    assert_eq!(parts.iter().map(|part| part.outcomes.len()).sum::<usize>(), 1_000);
    assert!(parts.len() > 1 && parts.iter().all(|part| part.revision == 40));
    for part in parts {
        encode(&EdgeMessage::Ack(part)).unwrap();
    }
}

#[test]
fn a_record_too_large_for_a_frame_is_named() {
    let mut record = plain("huge");
    record.uid = "u".repeat(MAX_FRAME as usize);
    let error = snapshot_parts(1, 1, [plain("ok"), record]).unwrap_err();
    assert!(matches!(&error, PartsError::TooLarge { id, .. } if id.name == "huge"));
    assert!(error.to_string().contains("default/huge"), "{error}");
}

#[test]
fn what_a_peer_writes_can_not_forge_log_lines() {
    let message = ErrorMessage {
        code: ErrorCode::Limit,
        text: format!("a\nERROR b\x1b[2J{}", "x".repeat(100_000)),
    };
    let shown = message.to_string();
    assert!(!shown.chars().any(char::is_control));
    assert!(shown.chars().count() < MAX_ERROR_TEXT + 40);
    assert!(shown.ends_with("(limit)"));
    assert!(
        ErrorMessage::new(ErrorCode::Limit, &message.text)
            .text
            .chars()
            .count()
            <= MAX_ERROR_TEXT
    );
}
