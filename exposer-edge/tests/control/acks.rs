//! Acknowledgements say what is really programmed, port by port, and say it again when it changes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use exposer_common::model::Protocol;
use exposer_common::proto::message::{Change, Path, RefusalCode};
use exposer_edge::control::ports::ReservedPorts;
use exposer_edge::control::programming::Served;
use exposer_edge::datapath::recording::Call;
use exposer_edge::datapath::{BindingKey, DatapathError};

use super::support::{Agent, Edge, id, of, port, record, tcp};

fn refused_by_the_system(_: BindingKey) -> DatapathError {
    DatapathError::System {
        action: "listening".into(),
        source: std::io::Error::from_raw_os_error(12),
    }
}

fn in_use(key: BindingKey) -> DatapathError {
    DatapathError::PortInUse {
        key,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        owner: " (nginx, pid 7)".into(),
    }
}

#[test]
fn the_ack_waits_for_the_datapath() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    edge.held = Some(Vec::new());
    let web = record("web", 1, vec![port(80, "tcp"), port(53, "tcp+udp")]);
    agent.send_snapshot(&mut edge, vec![web]);
    assert!(
        agent.acks(&mut edge).is_empty(),
        "acknowledged before anything was done"
    );
    edge.release();
    let acks = agent.acks(&mut edge);
    let [ack] = &acks[..] else { panic!("{acks:?}") };
    assert_eq!((ack.epoch, ack.revision), (agent.epoch, agent.revision));
    let [outcome] = &ack.outcomes[..] else {
        panic!("{ack:?}")
    };
    assert_eq!(outcome.ports.len(), 3);
    for outcome in &outcome.ports {
        assert_eq!(outcome.public_port, Some(outcome.requested));
        assert_eq!(outcome.path, Some(Path::Userspace));
        assert_eq!(outcome.refused, None);
    }
}

#[test]
fn an_empty_snapshot_is_acknowledged() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    assert!(agent.snapshot(&mut edge, Vec::new()).is_empty());
}

#[test]
fn a_bad_record_is_refused_alone() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    let good = record("good", 1, vec![port(80, "tcp")]);
    let mut bad = record("bad", 1, vec![port(81, "tcp")]);
    bad.subdomain = "No_Label".into();
    let mut huge = record("huge", 1, vec![port(82, "tcp")]);
    huge.id.name = "x".repeat(5_000);
    let outcomes = agent.snapshot(&mut edge, vec![good, bad.clone(), huge]);
    assert_eq!(of(&outcomes["good"], 80, Protocol::Tcp).public_port, Some(80));
    let refusal = outcomes["bad"].refused.clone().unwrap();
    assert_eq!(refusal.code, RefusalCode::InvalidRecord);
    assert!(refusal.text.contains("No_Label"), "{}", refusal.text);
    assert_eq!(outcomes.len(), 3);
    assert!(
        outcomes.keys().all(|name| name.len() < 300),
        "a name of 5,000 bytes was kept"
    );
    assert_eq!(edge.served().len(), 1);
    // Mended, it is served; broken again, it goes away and the other stays.
    bad.subdomain = "bad".into();
    let outcomes = agent.delta(&mut edge, vec![Change::Update(bad.clone())]);
    assert_eq!(of(&outcomes["bad"], 81, Protocol::Tcp).public_port, Some(81));
    bad.subdomain = "-".into();
    let outcomes = agent.delta(&mut edge, vec![Change::Update(bad)]);
    assert!(outcomes["bad"].refused.is_some());
    assert_eq!(edge.served().into_keys().collect::<Vec<_>>(), [tcp(80)]);
}

#[test]
fn a_failed_port_is_tried_again_and_told_again() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    for _ in 0..2 {
        edge.datapath.fail_next(tcp(80), Box::new(refused_by_the_system));
    }
    let services = vec![
        record("web", 1, vec![port(80, "tcp"), port(81, "tcp")]),
        record("other", 1, vec![port(82, "tcp")]),
    ];
    let outcomes = agent.snapshot(&mut edge, services);
    let failed = of(&outcomes["web"], 80, Protocol::Tcp);
    assert_eq!((failed.public_port, failed.path), (None, None));
    let refusal = failed.refused.unwrap();
    assert_eq!(refusal.code, RefusalCode::ProgramFailed);
    assert!(refusal.text.contains("listening"), "{}", refusal.text);
    assert_eq!(of(&outcomes["web"], 81, Protocol::Tcp).public_port, Some(81));
    assert!(
        !edge.core.plan().to_string().contains("80/tcp"),
        "it was told and waits for its retry"
    );
    // The second try comes after a second and fails as well: nothing new to say.
    edge.datapath.clear_calls();
    edge.pass(Duration::from_millis(900));
    assert!(edge.datapath.calls().is_empty());
    edge.pass(Duration::from_millis(200));
    assert_eq!(edge.datapath.calls().len(), 1);
    assert!(agent.acks(&mut edge).is_empty());
    // The third comes two seconds later, works, and is told: this Service alone, under the same revision.
    edge.pass(Duration::from_secs(3));
    let acks = agent.acks(&mut edge);
    let [ack] = &acks[..] else { panic!("{acks:?}") };
    assert_eq!(ack.revision, agent.revision);
    let [outcome] = &ack.outcomes[..] else {
        panic!("{ack:?}")
    };
    assert_eq!(of(outcome, 80, Protocol::Tcp).public_port, Some(80));
}

#[test]
fn a_port_that_turns_out_to_be_in_use_moves() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    edge.datapath.fail_next(tcp(80), Box::new(in_use));
    let outcomes = agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    let outcome = of(&outcomes["web"], 80, Protocol::Tcp);
    let given = outcome.public_port.unwrap();
    assert!(given >= 30_000);
    let refusal = outcome.refused.unwrap();
    assert_eq!(refusal.code, RefusalCode::PortReserved);
    assert_eq!(
        refusal.text,
        format!("port 80/tcp is in use by nginx, pid 7 on this host; port {given} was given instead")
    );
    assert_eq!(edge.served().into_keys().collect::<Vec<_>>(), [tcp(given)]);
    // Nobody else gets it either, until ten minutes later somebody may try.
    let other = || {
        vec![
            record("web", 1, vec![port(80, "tcp")]),
            record("other", 2, vec![port(80, "tcp")]),
        ]
    };
    let outcomes = agent.snapshot(&mut edge, other());
    assert_ne!(of(&outcomes["other"], 80, Protocol::Tcp).public_port, Some(80));
    agent.delta(&mut edge, vec![Change::Delete(id("other"))]);
    for _ in 0..25 {
        edge.pass(Duration::from_secs(25));
        let beat = exposer_common::proto::message::Heartbeat { revision: 0 };
        agent.say(
            &mut edge,
            &exposer_common::proto::message::AgentMessage::Heartbeat(beat),
        );
    }
    agent.acks(&mut edge);
    let outcomes = agent.snapshot(&mut edge, other());
    assert_eq!(of(&outcomes["other"], 80, Protocol::Tcp).public_port, Some(80));
    assert_eq!(
        of(&outcomes["web"], 80, Protocol::Tcp).public_port,
        Some(given),
        "it stays where it is"
    );
}

#[test]
fn a_removal_that_fails_is_tried_again() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    edge.datapath.fail_next(tcp(80), Box::new(refused_by_the_system));
    agent.delta(&mut edge, vec![Change::Delete(id("web"))]);
    assert_eq!(edge.served().len(), 1);
    edge.pass(Duration::from_secs(2));
    assert!(edge.served().is_empty());
}

#[test]
fn removals_come_before_what_takes_their_place() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![record("old", 1, vec![port(90, "tcp")])]);
    edge.datapath.clear_calls();
    agent.snapshot(
        &mut edge,
        vec![record("new", 1, vec![port(80, "tcp"), port(90, "tcp")])],
    );
    let calls = edge.datapath.calls();
    assert!(
        matches!(&calls[..], [Call::Upsert(first), Call::Upsert(second)]
        if first.key == tcp(80) && second.key == tcp(90) && second.service.id == id("new")),
        "{calls:?}"
    );
    agent.snapshot(&mut edge, vec![record("new", 1, vec![port(70, "tcp")])]);
    let calls = edge.datapath.calls();
    assert!(
        matches!(&calls[2..], [Call::Remove(_), Call::Remove(_), Call::Upsert(_)]),
        "{calls:?}"
    );
}

#[test]
fn an_unchanged_service_is_not_touched() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    let web = record("web", 1, vec![port(80, "tcp")]);
    agent.snapshot(&mut edge, vec![web.clone()]);
    edge.datapath.clear_calls();
    agent.snapshot(
        &mut edge,
        vec![web.clone(), record("other", 1, vec![port(81, "tcp")])],
    );
    let calls = edge.datapath.calls();
    assert!(
        matches!(&calls[..], [Call::Upsert(binding)] if binding.key == tcp(81)),
        "{calls:?}"
    );
}

#[test]
fn a_change_of_path_and_of_the_tunnel_is_told() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    let binding = edge.core.registry().binding(tcp(80)).unwrap();
    let told = |edge: &mut Edge, agent: &mut Agent| {
        let acks = agent.acks(edge);
        let [ack] = &acks[..] else { panic!("{acks:?}") };
        of(&ack.outcomes[0], 80, Protocol::Tcp)
    };
    let kernel = Served {
        path: Path::Kernel,
        downgrade: None,
    };
    edge.core
        .handle_path(tcp(80), binding.generation, kernel.clone(), edge.now);
    edge.pump();
    let outcome = told(&mut edge, &mut agent);
    assert_eq!((outcome.path, outcome.refused), (Some(Path::Kernel), None));
    // The same again, and news of an earlier generation, are no news.
    edge.core
        .handle_path(tcp(80), binding.generation, kernel, edge.now);
    let old = Served {
        path: Path::Userspace,
        downgrade: Some("the flow table is full".into()),
    };
    edge.core
        .handle_path(tcp(80), binding.generation - 1, old.clone(), edge.now);
    edge.pump();
    assert!(agent.acks(&mut edge).is_empty());
    edge.core.handle_path(tcp(80), binding.generation, old, edge.now);
    edge.pump();
    let refusal = told(&mut edge, &mut agent).refused.unwrap();
    assert_eq!(refusal.code, RefusalCode::PathDowngraded);
    assert!(refusal.text.contains("flow table is full"), "{}", refusal.text);
    edge.core
        .handle_environment(false, Vec::new(), Default::default(), edge.now);
    edge.pump();
    let outcome = told(&mut edge, &mut agent);
    assert_eq!(outcome.refused.unwrap().code, RefusalCode::TunnelDown);
    edge.core
        .handle_environment(true, Vec::new(), Default::default(), edge.now);
    edge.pump();
    assert_eq!(
        told(&mut edge, &mut agent).refused.unwrap().code,
        RefusalCode::PathDowngraded
    );
}

#[test]
fn a_port_of_the_host_is_refused_by_name() {
    let mut edge = Edge::with_reserved(ReservedPorts::from([(
        tcp(22),
        "in use by sshd, pid 1 on this host".into(),
    )]));
    let mut agent = Agent::connect(&mut edge, "home");
    let outcomes = agent.snapshot(&mut edge, vec![record("shell", 1, vec![port(22, "tcp")])]);
    let outcome = of(&outcomes["shell"], 22, Protocol::Tcp);
    assert!(outcome.public_port.is_some_and(|given| given >= 30_000));
    assert_eq!(outcome.refused.unwrap().code, RefusalCode::PortReserved);
    assert!(!edge.served().contains_key(&tcp(22)));
}

#[test]
fn ten_thousand_services_are_acknowledged_in_frames_that_fit() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    let services = |from: u32, to: u32| {
        (from..to)
            .map(|n| {
                record(
                    &format!("service-{n}"),
                    1,
                    vec![port(u16::try_from(n + 1).unwrap(), "udp")],
                )
            })
            .collect::<Vec<_>>()
    };
    let parts: Vec<_> =
        exposer_common::proto::parts::snapshot_parts(agent.epoch, 1, services(0, 10_000)).unwrap();
    assert!(parts.len() > 1);
    agent.revision = 1;
    for part in parts {
        agent.say(
            &mut edge,
            &exposer_common::proto::message::AgentMessage::Snapshot(part),
        );
    }
    let acks = agent.acks(&mut edge);
    assert!(acks.len() > 1);
    assert_eq!(acks.iter().map(|ack| ack.outcomes.len()).sum::<usize>(), 10_000);
    assert_eq!(edge.served().len(), 10_000);
    // One more costs one call and one outcome.
    edge.datapath.clear_calls();
    let outcomes = agent.delta(
        &mut edge,
        services(20_000, 20_001).into_iter().map(Change::Update).collect(),
    );
    assert_eq!((outcomes.len(), edge.datapath.calls().len()), (1, 1));
}
