//! What a packet would meet, over values.

use super::*;

fn packet(client: &str) -> Packet {
    Packet {
        client: client.parse().unwrap(),
        net: None,
        protocol: Protocol::Tcp,
        attached: Some(true),
        mode: Some(PortMode::Masquerade),
        service: Some(ServiceEntry {
            backend: [10, 96, 0, 10],
            backend_port: 80,
            mode: PortMode::Masquerade,
            egress_zone: 2,
            snat_address: [10, 0, 0, 1],
            snat_first: 1024,
            snat_count: 100,
            index: 1,
            generation: 1,
        }),
        flows: 0,
        sockets: 0,
        handed: 0,
        fresh: true,
        heartbeat: "fresh".to_owned(),
        limits: Limits::default(),
        snat_used: 3,
        table_used: 3,
        tunnel_up: true,
        stack: Stack {
            rp_filter: Some(2),
            redirected: None,
            blocked: None,
            listener: Some(("exposer-edge, pid 7".to_owned(), true)),
        },
    }
}

/// The reason of the verdict, and who serves.
fn end(packet: &Packet) -> (Option<&'static str>, End) {
    let journey = follow(packet);
    let reasons: Vec<_> = journey.steps.iter().filter_map(|step| step.reason).collect();
    assert!(reasons.len() <= 1, "one verdict for one packet: {journey:?}");
    (reasons.first().copied(), journey.end)
}

#[test]
fn a_stranger_of_the_internet_gets_a_flow() {
    let journey = follow(&packet("44.128.7.7"));
    let checks: Vec<_> = journey.steps.iter().map(|step| step.check).collect();
    assert_eq!(
        checks,
        [
            "program",
            "port table",
            "existing flow",
            "service",
            "source",
            "live socket",
            "heartbeat",
            "limits",
            "source port",
            "flow table",
            "tunnel"
        ]
    );
    assert_eq!(end(&packet("44.128.7.7")), (Some("FORWARD_NEW"), End::Kernel));
}

#[test]
fn each_check_of_the_programs_gives_its_reason() {
    let public = || packet("44.128.7.7");
    let rows: Vec<(Packet, &str, End)> = vec![
        (packet("2001:db8::1"), "NOT_IPV4", End::Userspace),
        (packet("192.168.1.5"), "SOURCE_MARTIAN", End::Userspace),
        (packet("127.0.0.1"), "SOURCE_MARTIAN", End::Userspace),
        (
            Packet {
                mode: Some(PortMode::Unmanaged),
                ..public()
            },
            "UNMANAGED",
            End::Userspace,
        ),
        (
            Packet {
                mode: Some(PortMode::Userspace),
                ..public()
            },
            "SERVICE_USERSPACE",
            End::Userspace,
        ),
        (
            Packet {
                service: None,
                ..public()
            },
            "NO_SERVICE",
            End::Userspace,
        ),
        (
            Packet {
                fresh: false,
                ..public()
            },
            "CONTROL_STALE",
            End::Userspace,
        ),
        (
            Packet {
                snat_used: 100,
                ..public()
            },
            "SNAT_EXHAUSTED",
            End::Userspace,
        ),
        (
            Packet {
                table_used: 393_216,
                ..public()
            },
            "FLOWS_FULL",
            End::Userspace,
        ),
        (
            Packet {
                tunnel_up: false,
                ..public()
            },
            "TUNNEL_DOWN",
            End::Nobody,
        ),
    ];
    for (packet, reason, served) in rows {
        assert_eq!(end(&packet), (Some(reason), served), "{packet:?}");
    }
}

#[test]
fn spent_limits_pass_a_syn_and_drop_a_datagram() {
    use exposer_common::flow::Rate;
    let empty = Bucket { tokens: 0, filled: 7 };
    let rate = Rate {
        burst: 5,
        interval: 1_000,
    };
    let all = Limits {
        now: 8,
        control: Control {
            per_source: rate,
            per_service: rate,
            overall: rate,
            ..Control::default()
        },
        ..Limits::default()
    };
    let source = Limits { source: empty, ..all };
    let service = Limits {
        service: empty,
        ..all
    };
    let overall = Limits {
        overall: empty,
        ..all
    };
    let of = |protocol, limits| {
        let packet = Packet {
            protocol,
            limits,
            ..packet("44.128.7.7")
        };
        end(&packet)
    };
    assert_eq!(of(Protocol::Tcp, all).1, End::Kernel);
    assert_eq!(
        of(Protocol::Tcp, source),
        (Some("SOURCE_LIMITED"), End::Userspace)
    );
    for spent in [service, overall] {
        assert_eq!(
            of(Protocol::Tcp, spent),
            (Some("UNREPLIED_BUDGET"), End::Userspace)
        );
    }
    for spent in [source, service, overall] {
        assert_eq!(of(Protocol::Udp, spent), (Some("UDP_LIMITED"), End::Nobody));
    }
}

#[test]
fn without_programs_or_maps_the_stack_has_it() {
    for packet in [
        Packet {
            attached: Some(false),
            ..packet("44.128.7.7")
        },
        Packet {
            mode: None,
            ..packet("44.128.7.7")
        },
    ] {
        assert_eq!(end(&packet), (None, End::Userspace));
    }
}

#[test]
fn what_is_there_already_is_told_and_is_no_verdict() {
    let busy = Packet {
        protocol: Protocol::Udp,
        flows: 2,
        sockets: 1,
        handed: 4,
        ..packet("44.128.7.7")
    };
    let journey = follow(&busy);
    let found = |check: &str| {
        let step = journey.steps.iter().find(|step| step.check == check);
        step.unwrap_or_else(|| panic!("{check}: {journey:?}"))
            .found
            .clone()
    };
    assert!(found("existing flow").starts_with("2 connections"));
    assert!(found("live socket").contains("OWNED_BY_SOCKET"));
    assert!(found("hand-over").contains("HANDED_OVER"));
    assert_eq!(journey.end, End::Kernel);
}

#[test]
fn the_stack_is_asked_too() {
    let behind = |stack: Stack| Packet {
        mode: Some(PortMode::Userspace),
        stack,
        ..packet("44.128.7.7")
    };
    let normal = || packet("44.128.7.7").stack;
    let rows = [
        (
            Stack {
                blocked: Some("policy drop".to_owned()),
                ..normal()
            },
            End::Nobody,
        ),
        (
            Stack {
                redirected: Some("docker".to_owned()),
                ..normal()
            },
            End::Host,
        ),
        (
            Stack {
                listener: Some(("nginx".to_owned(), false)),
                ..normal()
            },
            End::Host,
        ),
        (
            Stack {
                listener: None,
                ..normal()
            },
            End::Nobody,
        ),
    ];
    for (stack, served) in rows {
        assert_eq!(end(&behind(stack.clone())).1, served, "{stack:?}");
    }
}

#[test]
fn home_and_own_addresses_are_judged_by_the_stack() {
    let of = |net, rp_filter| Packet {
        net: Some(net),
        stack: Stack {
            rp_filter: Some(rp_filter),
            ..packet("44.128.7.7").stack
        },
        ..packet("44.128.7.7")
    };
    for (packet, served) in [
        (of(NetKind::Home, 1), End::Nobody),
        (of(NetKind::Home, 2), End::Userspace),
        (of(NetKind::Own, 0), End::Nobody),
    ] {
        assert_eq!(end(&packet), (Some("SOURCE_MARTIAN"), served), "{packet:?}");
    }
    assert_eq!(end(&of(NetKind::OnLink, 1)), (Some("FORWARD_NEW"), End::Kernel));
}
