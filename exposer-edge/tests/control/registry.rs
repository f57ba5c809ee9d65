//! The rules of the registry, as properties over random histories and as examples.

use std::collections::{BTreeMap, BTreeSet};

use exposer_common::model::{Protocol, ServiceRecord, TargetKind};
use exposer_common::proto::message::RefusalCode;
use exposer_edge::control::claim::{Allocation, Entry, Priority, SavedService, Wish};
use exposer_edge::control::ports::ReservedPorts;
use exposer_edge::control::registry::Registry;
use exposer_edge::datapath::{BindingKey, ServiceRef};
use proptest::prelude::*;

use super::support::{id, key, port, record, tcp};

const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=30_005;
const RESERVED: BindingKey = tcp(443);

fn registry() -> Registry {
    let mut registry = Registry::new(DYNAMIC, 0);
    registry.set_reserved(ReservedPorts::from([(
        RESERVED,
        "in use by nginx, pid 7 on this host".into(),
    )]));
    registry
}

fn service(agent: &str, name: &str) -> ServiceRef {
    ServiceRef {
        agent: agent.into(),
        id: id(name),
    }
}

type Batch = BTreeMap<ServiceRef, Option<ServiceRecord>>;

fn claims(list: &[(&str, &ServiceRecord)]) -> Batch {
    list.iter()
        .map(|(agent, record)| {
            let service = ServiceRef {
                agent: (*agent).to_owned(),
                id: record.id.clone(),
            };
            (service, Some((*record).clone()))
        })
        .collect()
}

fn withdraw(agent: &str, name: &str) -> Batch {
    BTreeMap::from([(service(agent, name), None)])
}

fn allocations(registry: &Registry) -> BTreeMap<(ServiceRef, Wish), Allocation> {
    registry
        .entries()
        .flat_map(|(service, entry)| {
            entry
                .ports
                .iter()
                .filter_map(|(wish, state)| Some(((service.clone(), *wish), state.allocated?)))
        })
        .collect()
}

fn public(registry: &Registry, agent: &str, name: &str, requested: u16, protocol: Protocol) -> Option<u16> {
    let wish = Wish { requested, protocol };
    let entry = registry.get(&service(agent, name))?;
    Some(entry.ports.get(&wish)?.allocated?.public_port)
}

fn any_record() -> impl Strategy<Value = (ServiceRef, ServiceRecord)> {
    let ports = proptest::collection::vec(
        (
            prop_oneof![Just(80), Just(443), Just(25_565), Just(30_001)],
            prop_oneof![Just("tcp"), Just("udp"), Just("tcp+udp")],
        ),
        1..4,
    );
    (0..2_u8, 0..5_u8, 0..2_u8, 0..3_u64, 0..4_u8, ports, 0..4_u8)
        .prop_map(|(agent, name, uid, created, subdomain, ports, target)| {
            let ports = ports
                .into_iter()
                .map(|(number, protocols)| port(number, protocols))
                .collect();
            let mut record = record(&format!("s{name}"), created, ports);
            record.uid = format!("{name}-{uid}");
            record.subdomain = format!("d{subdomain}");
            record.target = if target == 0 {
                TargetKind::NodePort
            } else {
                TargetKind::Auto
            };
            (service(&format!("a{agent}"), &format!("s{name}")), record)
        })
        .prop_filter("a record that breaks a rule never gets here", |(_, record)| {
            record.validate().is_ok()
        })
}

/// What happens next: a batch of claims and withdrawals, an agent given up, a port found in use.
#[derive(Clone, Debug)]
enum Happening {
    Batch(Batch),
    Expire(u8),
    InUse(u16),
}

fn any_batch() -> impl Strategy<Value = Batch> {
    proptest::collection::vec((any_record(), prop::bool::weighted(0.75)), 1..6).prop_map(|list| {
        list.into_iter()
            .map(|((service, record), claims)| (service, claims.then_some(record)))
            .collect()
    })
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => any_batch().prop_map(Happening::Batch),
        1 => (0..2_u8).prop_map(Happening::Expire),
        1 => prop_oneof![Just(80_u16), Just(25_565), Just(30_002)].prop_map(Happening::InUse),
    ]
}

/// What must hold after whatever happened.
fn check(registry: &Registry, in_use: &BTreeSet<BindingKey>) {
    let all = allocations(registry);
    let keys: BTreeSet<BindingKey> = all
        .iter()
        .map(|((_, wish), allocation)| key(allocation.public_port, wish.protocol))
        .collect();
    assert_eq!(keys.len(), all.len(), "a port was given twice");
    assert_eq!(
        all.values()
            .map(|allocation| allocation.index)
            .collect::<BTreeSet<_>>()
            .len(),
        all.len(),
        "an index was given twice"
    );
    assert!(!keys.contains(&RESERVED), "a port of the host was given out");
    assert!(keys.is_disjoint(in_use), "a port in use was given out");
    assert_eq!(
        registry
            .bindings()
            .map(|binding| binding.key)
            .collect::<BTreeSet<_>>(),
        keys,
        "holders and allocations differ"
    );
    let mut holders: BTreeMap<&str, Vec<&ServiceRef>> = BTreeMap::new();
    for (service, entry) in registry.entries() {
        let holding = holders.entry(&entry.record.subdomain).or_default();
        if entry.refused.is_none() {
            holding.push(service);
        }
        check_entry(registry, service, entry);
    }
    for (subdomain, holding) in holders {
        assert_eq!(holding.len(), 1, "subdomain {subdomain} is held by {holding:?}");
    }
}

fn check_entry(registry: &Registry, service: &ServiceRef, entry: &Entry) {
    if let Some(refused) = &entry.refused {
        assert_eq!(refused.code, RefusalCode::SubdomainTaken);
        assert!(refused.text.contains(&entry.record.subdomain), "{}", refused.text);
        assert!(entry.ports.is_empty(), "a refused Service has ports");
        return;
    }
    for record in &entry.record.ports {
        let states: Vec<_> = Protocol::ALL
            .into_iter()
            .filter(|protocol| record.side(*protocol).is_some())
            .map(|protocol| {
                let wish = Wish {
                    requested: record.public_port,
                    protocol,
                };
                (wish, entry.ports.get(&wish).expect("every wish is answered"))
            })
            .collect();
        let numbers: BTreeSet<_> = states
            .iter()
            .map(|(_, state)| state.allocated.map(|allocation| allocation.public_port))
            .collect();
        assert_eq!(numbers.len(), 1, "both sides get one number: {states:?}");
        for (wish, state) in states {
            match (&state.allocated, &state.refused) {
                (Some(allocation), None) => assert_eq!(allocation.public_port, wish.requested),
                (Some(allocation), Some(refusal)) => {
                    assert!(
                        allocation.public_port != wish.requested || refusal.code == RefusalCode::PortMoved,
                        "{refusal:?}"
                    );
                    assert!(matches!(
                        refusal.code,
                        RefusalCode::PortMoved | RefusalCode::PortReserved
                    ));
                    assert!(
                        refusal.text.contains(&wish.requested.to_string()),
                        "{}",
                        refusal.text
                    );
                }
                (None, Some(refusal)) if refusal.code == RefusalCode::PortsExhausted => {
                    let sides: Vec<Protocol> = Protocol::ALL
                        .into_iter()
                        .filter(|protocol| record.side(*protocol).is_some())
                        .collect();
                    for candidate in DYNAMIC.chain([wish.requested]) {
                        assert!(
                            sides.iter().any(|side| {
                                registry
                                    .taken(key(candidate, *side), service, wish.requested)
                                    .is_some()
                            }),
                            "{service} {wish:?} goes without although {candidate} is free"
                        );
                    }
                }
                (None, Some(refusal)) => assert_eq!(refusal.code, RefusalCode::NoTarget),
                (None, None) => panic!("{service} {wish:?} has neither a port nor a reason"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// No port twice, every refusal explained, one holder of each name, nothing withheld, whatever happens.
    #[test]
    fn rules_hold_through_any_history(history in proptest::collection::vec(any_happening(), 1..12)) {
        let mut registry = registry();
        let mut in_use = BTreeSet::new();
        for happening in history {
            let before = allocations(&registry);
            let untouched: BTreeSet<ServiceRef> = match happening {
                Happening::Batch(batch) => {
                    let named: BTreeSet<ServiceRef> = batch.keys().cloned().collect();
                    registry.apply(batch);
                    registry.entries().map(|(s, _)| s.clone()).filter(|s| !named.contains(s)).collect()
                }
                Happening::Expire(agent) => {
                    registry.expire_agent(&format!("a{agent}"));
                    registry.entries().map(|(s, _)| s.clone()).collect()
                }
                Happening::InUse(number) => {
                    in_use.insert(tcp(number));
                    registry.port_in_use(tcp(number), "in use by caddy, pid 9 on this host".into());
                    BTreeSet::new()
                }
            };
            check(&registry, &in_use);
            let after = allocations(&registry);
            for (owner, allocation) in before {
                if untouched.contains(&owner.0) {
                    prop_assert_eq!(after.get(&owner), Some(&allocation), "a bystander was moved");
                }
            }
        }
    }

    /// A Service that says again what it said keeps everything, to the generation.
    #[test]
    fn saying_it_again_changes_nothing(batches in proptest::collection::vec(any_batch(), 1..6)) {
        let mut registry = registry();
        for batch in batches {
            registry.apply(batch);
        }
        let before = allocations(&registry);
        let again: Batch = registry
            .entries()
            .map(|(service, entry)| (service.clone(), Some(entry.record.clone())))
            .collect();
        registry.apply(again);
        prop_assert_eq!(allocations(&registry), before);
    }

    /// What is saved comes back the same, also the names.
    #[test]
    fn a_restart_changes_nothing(batches in proptest::collection::vec(any_batch(), 1..6), seed in any::<u64>()) {
        let mut before = registry();
        for batch in batches {
            before.apply(batch);
        }
        let mut saved: Vec<(String, SavedService)> = ["a0", "a1"]
            .into_iter()
            .flat_map(|agent| before.save(agent).into_iter().map(move |service| (agent.to_owned(), service)))
            .collect();
        shuffle(&mut saved, seed);
        let text = serde_json::to_string(&saved).unwrap();
        let mut after = registry();
        after.go_on_from(before.last_generation());
        after.restore(serde_json::from_str(&text).unwrap());
        prop_assert_eq!(allocations(&after), allocations(&before));
        let refused = |registry: &Registry| -> Vec<ServiceRef> {
            registry.entries().filter(|(_, e)| e.refused.is_some()).map(|(s, _)| s.clone()).collect()
        };
        prop_assert_eq!(refused(&after), refused(&before));
    }

    /// Claims that arrive together: the oldest wins the name, whatever the order in which they were read.
    #[test]
    fn the_oldest_of_those_that_come_together_wins(batch in any_batch(), seed in any::<u64>()) {
        let mut registry = registry();
        registry.apply(batch.clone());
        for (service, entry) in registry.entries().filter(|(_, entry)| entry.refused.is_none()) {
            let mine = Priority::of(service, &entry.record);
            for (other, rival) in registry.entries() {
                prop_assert!(
                    rival.record.subdomain != entry.record.subdomain || mine <= Priority::of(other, &rival.record)
                );
            }
        }
        let mut unsettled: Vec<(String, SavedService)> = batch
            .into_iter()
            .filter_map(|(service, record)| {
                Some((service.agent, SavedService { record: record?, admitted: false, ports: Vec::new() }))
            })
            .collect();
        shuffle(&mut unsettled, seed);
        let mut other = self::registry();
        other.restore(unsettled);
        let ports = |registry: &Registry| -> Vec<_> {
            allocations(registry).into_iter().map(|(owner, a)| (owner, a.public_port, a.backend)).collect()
        };
        prop_assert_eq!(ports(&other), ports(&registry));
    }
}

fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for last in (1..list.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        list.swap(last, usize::try_from(state >> 33).unwrap() % (last + 1));
    }
}

#[test]
fn a_live_holder_is_not_evicted_by_an_older_latecomer() {
    let mut registry = registry();
    registry.apply(claims(&[("home", &record("young", 20, vec![port(80, "tcp")]))]));
    let mut old = record("old", 10, vec![port(80, "tcp")]);
    registry.apply(claims(&[("home", &old)]));
    assert_eq!(public(&registry, "home", "young", 80, Protocol::Tcp), Some(80));
    let moved = public(&registry, "home", "old", 80, Protocol::Tcp).unwrap();
    assert!(DYNAMIC.contains(&moved));
    let wish = Wish {
        requested: 80,
        protocol: Protocol::Tcp,
    };
    let refusal = registry.get(&service("home", "old")).unwrap().ports[&wish]
        .refused
        .clone()
        .unwrap();
    assert_eq!(refusal.code, RefusalCode::PortMoved);
    assert_eq!(
        refusal.text,
        format!("port 80/tcp belongs to Service games/young of agent home; port {moved} was given instead")
    );
    // It stays where it is when the port gets free: clients know it there.
    registry.apply(withdraw("home", "young"));
    assert_eq!(public(&registry, "home", "old", 80, Protocol::Tcp), Some(moved));
    // Made again, it is another Service, and asks anew.
    old.uid = "another".into();
    registry.apply(claims(&[("home", &old)]));
    assert_eq!(public(&registry, "home", "old", 80, Protocol::Tcp), Some(80));
}

#[test]
fn the_name_goes_to_the_oldest_that_waits_for_it() {
    let mut registry = registry();
    let named = |name: &str, created| {
        let mut record = record(name, created, vec![port(80, "tcp")]);
        record.subdomain = "mc".into();
        record
    };
    registry.apply(claims(&[("home", &named("first", 30))]));
    registry.apply(claims(&[
        ("home", &named("second", 20)),
        ("cabin", &named("third", 10)),
    ]));
    let refusal = registry
        .get(&service("cabin", "third"))
        .unwrap()
        .refused
        .clone()
        .unwrap();
    assert_eq!(
        refusal.text,
        "subdomain \"mc\" belongs to Service games/first of agent home; choose another one, or delete that Service"
    );
    registry.apply(withdraw("home", "first"));
    assert_eq!(registry.get(&service("cabin", "third")).unwrap().refused, None);
    assert_eq!(public(&registry, "cabin", "third", 80, Protocol::Tcp), Some(80));
    assert!(
        registry
            .get(&service("home", "second"))
            .unwrap()
            .refused
            .is_some()
    );
}

#[test]
fn two_services_may_swap_their_names_in_one_step() {
    let mut registry = registry();
    let (mut one, mut two) = (
        record("one", 1, vec![port(80, "tcp")]),
        record("two", 2, vec![port(81, "tcp")]),
    );
    registry.apply(claims(&[("home", &one), ("home", &two)]));
    std::mem::swap(&mut one.subdomain, &mut two.subdomain);
    registry.apply(claims(&[("home", &one), ("home", &two)]));
    assert!(registry.entries().all(|(_, entry)| entry.refused.is_none()));
}

#[test]
fn both_protocols_move_if_either_is_taken() {
    let mut registry = registry();
    registry.apply(claims(&[("home", &record("dns", 1, vec![port(53, "udp")]))]));
    registry.apply(claims(&[("home", &record("both", 2, vec![port(53, "tcp+udp")]))]));
    let moved = public(&registry, "home", "both", 53, Protocol::Tcp).unwrap();
    assert!(DYNAMIC.contains(&moved));
    assert_eq!(public(&registry, "home", "both", 53, Protocol::Udp), Some(moved));
    // TCP alone of the number is free for whoever asks for TCP alone.
    registry.apply(claims(&[("home", &record("tcp", 3, vec![port(53, "tcp")]))]));
    assert_eq!(public(&registry, "home", "tcp", 53, Protocol::Tcp), Some(53));
}

#[test]
fn a_port_of_the_host_is_refused_and_named() {
    let mut registry = registry();
    registry.apply(claims(&[("home", &record("web", 1, vec![port(443, "tcp")]))]));
    let wish = Wish {
        requested: 443,
        protocol: Protocol::Tcp,
    };
    let state = registry.get(&service("home", "web")).unwrap().ports[&wish].clone();
    let refusal = state.refused.unwrap();
    assert_eq!(refusal.code, RefusalCode::PortReserved);
    let given = state.allocated.unwrap().public_port;
    assert_eq!(
        refusal.text,
        format!("port 443/tcp is in use by nginx, pid 7 on this host; port {given} was given instead")
    );
}

#[test]
fn the_same_dynamic_port_is_found_again_without_any_memory() {
    let web = record("web", 1, vec![port(443, "tcp")]);
    let given = |registry: &mut Registry| {
        registry.apply(claims(&[("home", &web)]));
        public(registry, "home", "web", 443, Protocol::Tcp).unwrap()
    };
    assert_eq!(given(&mut registry()), given(&mut registry()));
}

#[test]
fn an_agent_that_was_given_up_gets_its_ports_again() {
    let mut registry = registry();
    registry.apply(claims(&[("home", &record("holder", 1, vec![port(80, "tcp")]))]));
    let web = record("web", 2, vec![port(80, "tcp")]);
    registry.apply(claims(&[("cabin", &web)]));
    let moved = public(&registry, "cabin", "web", 80, Protocol::Tcp);
    registry.expire_agent("cabin");
    assert_eq!(public(&registry, "cabin", "web", 80, Protocol::Tcp), None);
    registry.apply(claims(&[("cabin", &web)]));
    assert_eq!(public(&registry, "cabin", "web", 80, Protocol::Tcp), moved);
}

#[test]
fn the_generation_rises_with_the_backend_and_only_then() {
    let mut registry = registry();
    let mut web = record("web", 1, vec![port(80, "tcp")]);
    registry.apply(claims(&[("home", &web)]));
    let first = registry.binding(tcp(80)).unwrap();
    web.idle_timeout = Some(60);
    registry.apply(claims(&[("home", &web)]));
    let second = registry.binding(tcp(80)).unwrap();
    assert_eq!((second.index, second.generation), (first.index, first.generation));
    assert_eq!(second.idle_timeout, Some(std::time::Duration::from_secs(60)));
    web.cluster_ip = Some("10.96.0.11".parse().unwrap());
    registry.apply(claims(&[("home", &web)]));
    let third = registry.binding(tcp(80)).unwrap();
    assert_eq!(third.index, first.index);
    assert!(third.generation > first.generation);
}

#[test]
fn a_target_is_chosen_or_the_reason_is_given() {
    let mut registry = registry();
    let mut record = record("web", 1, vec![port(80, "tcp")]);
    let mut apply = |record: &ServiceRecord| {
        registry.apply(claims(&[("home", record)]));
        let wish = Wish {
            requested: 80,
            protocol: Protocol::Tcp,
        };
        let state = registry.get(&service("home", "web")).unwrap().ports[&wish].clone();
        match state.allocated {
            Some(allocation) => allocation.backend.to_string(),
            None => state.refused.unwrap().text,
        }
    };
    assert_eq!(apply(&record), "10.96.0.10:80");
    record.target = TargetKind::NodePort;
    assert!(apply(&record).contains("no node port"));
    record.ports[0].tcp.as_mut().unwrap().node_port = Some(31_080);
    assert_eq!(apply(&record), "10.0.0.2:31080");
    record.target = TargetKind::Auto;
    record.cluster_ip = None;
    assert_eq!(apply(&record), "10.0.0.2:31080");
    record.target = TargetKind::ClusterIp;
    assert!(apply(&record).contains("headless"));
    record.target = TargetKind::PodIp;
    assert!(apply(&record).contains("pod-ip"));
    record.target = TargetKind::Auto;
    record.cluster_ip = Some("fd00::10".parse().unwrap());
    assert_eq!(apply(&record), "[fd00::10]:80");
}

#[test]
fn nobody_publishes_the_edge_itself() {
    let mut registry = registry();
    registry.set_own_addresses(BTreeSet::from(["10.0.0.1".parse().unwrap()]));
    let mut record = record("web", 1, vec![port(80, "tcp")]);
    record.cluster_ip = Some("10.0.0.1".parse().unwrap());
    registry.apply(claims(&[("home", &record)]));
    assert_eq!(registry.binding(tcp(80)), None);
    let wish = Wish {
        requested: 80,
        protocol: Protocol::Tcp,
    };
    let refusal = registry.get(&service("home", "web")).unwrap().ports[&wish]
        .refused
        .clone()
        .unwrap();
    assert_eq!(refusal.code, RefusalCode::NoTarget);
    // An address that becomes the edge's own later closes the port, too; one that stops being its own opens it.
    registry.set_own_addresses(BTreeSet::new());
    assert!(registry.binding(tcp(80)).is_some());
}

#[test]
fn a_crowd_that_waits_for_ports_costs_the_others_little() {
    let mut registry = Registry::new(30_000..=32_767, 0);
    let crowd: Vec<ServiceRecord> = (0..10_000)
        .map(|n| record(&format!("s{n}"), n, vec![port(80, "tcp")]))
        .collect();
    registry.apply(
        crowd
            .iter()
            .map(|record| (service("greedy", &record.id.name), Some(record.clone())))
            .collect(),
    );
    assert_eq!(allocations(&registry).len(), 1 + 2_768);
    let begin = std::time::Instant::now();
    for n in 0..10 {
        registry.apply(withdraw("greedy", &format!("s{n}")));
    }
    assert_eq!(
        allocations(&registry).len(),
        1 + 2_768,
        "whoever waits longest gets what is freed"
    );
    // An upper bound that a search through the whole range for each that waits misses by far, even unoptimised.
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    println!("a release with 7,000 that wait: {:?}", begin.elapsed() / 10);
}
