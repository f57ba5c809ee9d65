//! What is said of a port, over values.

use exposer_common::model::Protocol;
use exposer_common::proto::message::Refusal;

use super::*;
use crate::datapath::BindingStats;

fn facts(path: Option<Path>, mode: PortMode) -> PortFacts {
    let status = PortStatus {
        requested: 443,
        protocol: Protocol::Tcp,
        public_port: Some(443),
        index: Some(1),
        path,
        backend: Some("10.96.0.10:80".parse().unwrap()),
        refused: None,
        stats: BindingStats::default(),
    };
    PortFacts {
        key: BindingKey {
            port: 443,
            protocol: Protocol::Tcp,
        },
        told: Some(("home:web/nginx".to_owned(), status)),
        daemon: true,
        mode: Some(mode),
        service: None,
        fresh: true,
        configured: "auto".to_owned(),
        why_userspace: None,
        blocked: None,
        redirected: None,
        listener: Some(("exposer-edge, pid 7".to_owned(), true)),
    }
}

fn served() -> PortFacts {
    facts(Some(Path::Kernel), PortMode::Masquerade)
}

fn refused(mut facts: PortFacts, code: RefusalCode, text: &str) -> PortFacts {
    if let Some((_, port)) = &mut facts.told {
        port.refused = Some(Refusal {
            code,
            text: text.to_owned(),
        });
    }
    facts
}

/// Path, and the problems as one text.
fn told(facts: &PortFacts) -> (&'static str, String) {
    let answer = judge(facts);
    let whats: Vec<_> = answer
        .problems
        .iter()
        .map(|problem| problem.what.as_str())
        .collect();
    (answer.path, whats.join("; "))
}

#[test]
fn the_kernel_path_is_as_good_as_it_gets() {
    let answer = judge(&served());
    assert_eq!((answer.path, answer.problems), ("kernel", Vec::new()));
    assert_eq!(answer.service.as_deref(), Some("home:web/nginx"));
    assert_eq!(answer.backend.as_deref(), Some("10.96.0.10:80"));
}

#[test]
fn userspace_by_wish_is_no_problem_and_by_mishap_is_one() {
    let userspace = |mode| facts(Some(Path::Userspace), mode);
    let text = "the target fd00::1 is IPv6";
    let wished = refused(userspace(PortMode::Userspace), RefusalCode::PathDowngraded, text);
    assert_eq!(told(&wished), ("userspace", String::new()));
    assert_eq!(judge(&wished).why, text);
    let setting = PortFacts {
        configured: "userspace".to_owned(),
        ..userspace(PortMode::Unmanaged)
    };
    assert_eq!(told(&setting), ("userspace", String::new()));

    let off = PortFacts {
        why_userspace: Some("no BTF".to_owned()),
        ..userspace(PortMode::Unmanaged)
    };
    assert_eq!(
        told(&off),
        ("userspace", "the kernel path is off: no BTF".to_owned())
    );
    let passing = refused(
        userspace(PortMode::Unmanaged),
        RefusalCode::PathDowngraded,
        "map full",
    );
    assert_eq!(told(&passing), ("userspace", "map full".to_owned()));
}

#[test]
fn refusals_are_told_in_their_own_words() {
    let moved = refused(served(), RefusalCode::PortMoved, "80 is web/other's");
    assert_eq!(told(&moved), ("kernel", "80 is web/other's".to_owned()));
    let mut nothing = refused(served(), RefusalCode::PortsExhausted, "no port is free");
    if let Some((_, port)) = &mut nothing.told {
        port.public_port = None;
    }
    assert_eq!(told(&nothing), ("none", "no port is free".to_owned()));
    if let Some((_, port)) = &mut nothing.told {
        port.refused = None;
    }
    assert_eq!(
        told(&nothing),
        ("none", "443/tcp is not programmed yet".to_owned())
    );
}

#[test]
fn what_stands_before_the_userspace_path() {
    let blocked = PortFacts {
        blocked: Some(Blocker {
            rule: "table inet guard, chain input: policy drop".to_owned(),
            remedy: "nft insert rule".to_owned(),
        }),
        ..served()
    };
    assert!(told(&blocked).1.contains("chain input: policy drop"));
    assert_eq!(judge(&blocked).problems[0].remedy, "nft insert rule");
    let docker = PortFacts {
        redirected: Some("chain DOCKER".to_owned()),
        ..served()
    };
    assert!(told(&docker).1.contains("chain DOCKER"));
    let taken = PortFacts {
        listener: Some(("nginx, pid 9".to_owned(), false)),
        ..served()
    };
    assert!(told(&taken).1.contains("nginx, pid 9"));
    let alone = PortFacts {
        listener: None,
        ..served()
    };
    assert!(told(&alone).1.contains("nobody listens"));
}

#[test]
fn ports_that_nobody_told_of() {
    let untold = |daemon, mode, fresh| PortFacts {
        told: None,
        daemon,
        fresh,
        mode: Some(mode),
        service: Some((
            "44.128.0.2".parse().unwrap(),
            ServiceEntry {
                backend: [10, 96, 0, 10],
                backend_port: 80,
                mode,
                egress_zone: 2,
                snat_address: [10, 0, 0, 1],
                snat_first: 1024,
                snat_count: 100,
                index: 1,
                generation: 1,
            },
        )),
        listener: None,
        ..served()
    };
    let path = |facts: PortFacts| told(&facts).0;
    assert_eq!(path(untold(false, PortMode::Masquerade, true)), "kernel");
    assert_eq!(path(untold(false, PortMode::Masquerade, false)), "none");
    assert_eq!(path(untold(false, PortMode::Userspace, true)), "none");
    assert_eq!(
        path(untold(true, PortMode::Masquerade, true)),
        "none",
        "it closes"
    );
    let (path, problems) = told(&untold(true, PortMode::Unmanaged, true));
    assert_eq!(
        (path, problems.as_str()),
        ("none", "443/tcp is not a port of Exposer")
    );
    let ssh = PortFacts {
        listener: Some(("sshd, pid 1".to_owned(), false)),
        ..untold(true, PortMode::Unmanaged, true)
    };
    assert!(judge(&ssh).why.contains("sshd, pid 1"));
}
