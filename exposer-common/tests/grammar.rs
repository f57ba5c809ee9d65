//! The annotation grammar, as tables: what a person may write, and what he is told where he slipped.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "test code"
)]

use std::collections::BTreeMap;

use exposer_common::k8s::annotations::{CLIENT_IP, IDLE_TIMEOUT, KEYS, PORTS, SUBDOMAIN, TARGET};
use exposer_common::k8s::duration::parse_seconds;
use exposer_common::k8s::ports::MAX_TEXT;
use exposer_common::k8s::{
    AnnotationKeys, DEFAULT_PREFIX, PortSpec, Protocols, ServicePortInfo, ServicePortRef, parse_ports,
    resolve,
};
use exposer_common::model::{ClientIp, PortRecord, Protocol, ServicePort, TargetKind};
use proptest::prelude::*;

/// The list in the grammar's own shortest words.
fn shown(text: &str) -> String {
    let specs = parse_ports(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    specs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn lists_that_are_right() {
    let table = [
        ("25565/tcp", "25565/tcp"),
        ("25565/udp", "25565/udp"),
        ("25565/tcp+udp", "25565/tcp+udp"),
        ("25565/udp+tcp", "25565/tcp+udp"),
        ("25565/TCP", "25565/tcp"),
        ("25565/tcp,25565/udp", "25565/tcp 25565/udp"),
        ("8080:80/tcp", "8080:80/tcp"),
        ("80:80/tcp", "80/tcp"),
        ("8080:http/tcp", "8080:http/tcp"),
        ("53:dns-0/udp", "53:dns-0/udp"),
        ("27000-27003/udp", "27000/udp 27001/udp 27002/udp 27003/udp"),
        ("27000-27000/udp", "27000/udp"),
        ("1/tcp,65535/udp", "1/tcp 65535/udp"),
        (
            "  80/tcp ,\n\t8080 : http / tcp + udp\n",
            "80/tcp 8080:http/tcp+udp",
        ),
        ("65534-65535/tcp", "65534/tcp 65535/tcp"),
        (
            "1-256/tcp",
            &(1..=256)
                .map(|port| format!("{port}/tcp"))
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shown(text), expected, "{text:?}");
    }
    assert_eq!(
        parse_ports("8080:http/tcp+udp").unwrap(),
        [PortSpec {
            public: 8_080,
            service: ServicePortRef::Name("http".into()),
            protocols: Protocols::Both
        }]
    );
}

#[test]
fn lists_that_are_wrong_and_what_is_said() {
    let table = [
        (
            "",
            "\"\" at character 1: no port is named; write for example 25565/tcp",
        ),
        ("   ", "no port is named"),
        (
            "25565",
            "\"25565\" at character 1: the protocol is missing; write 25565/tcp, 25565/udp or 25565/tcp+udp",
        ),
        (
            "80/tcp, 25565",
            "\"25565\" at character 9: the protocol is missing",
        ),
        (
            "25565/tpc",
            "\"tpc\" at character 7: this is no protocol; write tcp, udp or tcp+udp (did you mean \"tcp\"?)",
        ),
        (
            "80/tcp,443/http",
            "\"http\" at character 12: this is no protocol; write tcp, udp or tcp+udp",
        ),
        ("80/", "\"\" at character 4: this is no protocol"),
        (
            "80/tcp/udp",
            "\"tcp/udp\" at character 4: this is no protocol; write tcp, udp or tcp+udp (did you mean \"tcp+udp\"?)",
        ),
        ("80/tcp+", "\"tcp+\" at character 4: this is no protocol"),
        (
            "80/tcp+tcp",
            "\"tcp+tcp\" at character 4: the same protocol twice; write tcp+udp for both",
        ),
        ("80/tcp+udp+tcp", "this is no protocol"),
        ("80/sctp", "\"sctp\" at character 4: this is no protocol"),
        (
            "0/tcp",
            "\"0\" at character 1: this is no port; a port is a number from 1 to 65535",
        ),
        ("65536/tcp", "\"65536\" at character 1: this is no port"),
        ("99999999999999999999/tcp", "this is no port"),
        ("-1/tcp", "\"\" at character 1: this is no port"),
        ("+80/tcp", "\"+80\" at character 1: this is no port"),
        ("８０/tcp", "\"８０\" at character 1: this is no port"),
        ("http/tcp", "\"http\" at character 1: this is no port"),
        (
            "080/tcp",
            "\"080\" at character 1: a port has no leading zeros; write 80",
        ),
        (
            "80:080/tcp",
            "\"080\" at character 4: a port has no leading zeros; write 80",
        ),
        ("/tcp", "\"\" at character 1: this is no port"),
        (":80/tcp", "\"\" at character 1: this is no port"),
        ("80:/tcp", "\"\" at character 4: this is no port of a Service"),
        ("80:0/tcp", "\"0\" at character 4: this is no port"),
        (
            "80:Http/tcp",
            "\"Http\" at character 4: this is no port of a Service; write its number, or its name",
        ),
        ("80:81:82/tcp", "\"80:81:82\" at character 1: one colon is enough"),
        (
            "80/tcp,,443/tcp",
            "\"\" at character 8: there is no port here; remove the comma that is too many",
        ),
        ("80/tcp,", "\"\" at character 8: there is no port here"),
        (",80/tcp", "\"\" at character 1: there is no port here"),
        (
            "27015-27000/udp",
            "\"27015-27000\" at character 1: the range is upside down",
        ),
        (
            "27000-27015:80/udp",
            "\"27000-27015:80\" at character 1: a range can't be mapped",
        ),
        ("27000-/udp", "\"\" at character 7: this is no port"),
        ("1-2-3/udp", "\"2-3\" at character 3: this is no port"),
        (
            "1-257/tcp",
            "\"1-257\" at character 1: with this there are 257 ports; at most 256 are allowed",
        ),
        ("1-65535/tcp", "with this there are 65535 ports"),
        (
            "1-200/tcp,301-357/tcp",
            "\"301-357/tcp\" at character 11: with this there are 257 ports",
        ),
        (
            "80/tcp,80/tcp",
            "\"80/tcp\" at character 8: public port 80/tcp is named twice",
        ),
        (
            "80/tcp, 80:81/tcp+udp",
            "\"80:81/tcp+udp\" at character 9: public port 80/tcp is named twice",
        ),
        (
            "80-90/udp,85/udp",
            "\"85/udp\" at character 11: public port 85/udp is named twice",
        ),
        (
            "80/tcp;443/tcp",
            "\"tcp;443/tcp\" at character 4: this is no protocol",
        ),
        (
            "80/tcp 443/tcp",
            "\"tcp 443/tcp\" at character 4: this is no protocol",
        ),
    ];
    for (text, expected) in table {
        let error = parse_ports(text).expect_err(text).to_string();
        assert!(
            error.contains(expected),
            "{text:?}\n  says     {error}\n  expected {expected}"
        );
    }
    let long = "80/tcp,".repeat(MAX_TEXT);
    let error = parse_ports(&long).unwrap_err().to_string();
    assert!(
        error.contains("longer than 4096 bytes") && error.len() < 300,
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_text_is_a_list_or_an_error(text in "\\PC{0,60}") {
        let _ = parse_ports(&text);
    }

    #[test]
    fn nearly_lists_never_panic(text in "[0-9a-z:/+, é-]{0,40}") {
        if let Ok(specs) = parse_ports(&text) {
            // What is printed reads back as the same.
            let printed = specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(parse_ports(&printed).unwrap(), specs);
        } else if let Err(error) = parse_ports(&text) {
            prop_assert!(error.position <= text.chars().count() + 1);
            prop_assert!(error.text.is_empty() || text.contains(&error.text), "{} not in {}", error.text, text);
        }
    }

    #[test]
    fn durations_never_panic(text in "[0-9smh ]{0,30}") {
        if let Ok(seconds) = parse_seconds(&text) {
            prop_assert!((1..=86_400).contains(&seconds));
        }
    }
}

fn offered(
    name: &str,
    port: u16,
    protocol: Protocol,
    target: Option<u16>,
    node: Option<u16>,
) -> ServicePortInfo {
    let name = (!name.is_empty()).then(|| name.to_owned());
    ServicePortInfo {
        name,
        port,
        protocol,
        target_port: target,
        node_port: node,
    }
}

fn minecraft() -> Vec<ServicePortInfo> {
    vec![
        offered("game", 25_565, Protocol::Tcp, Some(30_001), Some(31_000)),
        offered("game-udp", 25_565, Protocol::Udp, None, None),
        offered("http", 80, Protocol::Tcp, Some(8_080), Some(31_080)),
    ]
}

#[test]
fn specs_find_the_services_ports() {
    let records = resolve(
        &parse_ports("25565/tcp+udp, 8080:http/tcp").unwrap(),
        &minecraft(),
    )
    .unwrap();
    let game = ServicePort {
        service_port: 25_565,
        target_port: Some(30_001),
        node_port: Some(31_000),
    };
    let game_udp = ServicePort {
        service_port: 25_565,
        target_port: None,
        node_port: None,
    };
    let http = ServicePort {
        service_port: 80,
        target_port: Some(8_080),
        node_port: Some(31_080),
    };
    assert_eq!(
        records,
        [
            PortRecord {
                public_port: 25_565,
                tcp: Some(game),
                udp: Some(game_udp)
            },
            PortRecord {
                public_port: 8_080,
                tcp: Some(http),
                udp: None
            },
        ]
    );
    // Written apart, they are placed apart.
    let apart = resolve(&parse_ports("25565/tcp,25565/udp").unwrap(), &minecraft()).unwrap();
    assert_eq!(
        apart,
        [
            PortRecord {
                public_port: 25_565,
                tcp: Some(game),
                udp: None
            },
            PortRecord {
                public_port: 25_565,
                tcp: None,
                udp: Some(game_udp)
            },
        ]
    );
}

#[test]
fn specs_that_the_service_does_not_have() {
    const OFFERS: &str = "it offers 25565/tcp (game), 25565/udp (game-udp), 80/tcp (http)";
    let table = [
        (
            "80/udp",
            "\"80/udp\": the Service has no udp port 80 (only tcp); it offers",
        ),
        (
            "8080:http/tcp+udp",
            "\"8080:http/tcp+udp\": the Service has no udp port named \"http\" (only tcp)",
        ),
        (
            "443/tcp",
            "\"443/tcp\": the Service has no tcp port 443; it offers",
        ),
        (
            "443:web/tcp",
            "the Service has no tcp port named \"web\"; it offers",
        ),
        (
            "8080/tcp",
            "the Service has no tcp port 8080 (8080 is a targetPort; write 8080:80/tcp)",
        ),
        (
            "31080/tcp",
            "the Service has no tcp port 31080 (31080 is a nodePort; write 31080:80/tcp)",
        ),
    ];
    for (text, expected) in table {
        let error = resolve(&parse_ports(text).unwrap(), &minecraft())
            .expect_err(text)
            .to_string();
        assert!(
            error.contains(expected),
            "{text:?}\n  says     {error}\n  expected {expected}"
        );
        assert!(error.ends_with(OFFERS), "{error}");
    }
    let error = resolve(&parse_ports("80/tcp").unwrap(), &[])
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("it offers neither TCP nor UDP ports"), "{error}");
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| (format!("{DEFAULT_PREFIX}/{key}"), (*value).to_owned()))
        .collect()
}

#[test]
fn annotations_that_are_right() {
    let keys = AnnotationKeys::default();
    let request = keys
        .read(&annotations(&[(SUBDOMAIN, " minecraft\n"), (PORTS, "25565/tcp")]))
        .unwrap()
        .unwrap();
    assert_eq!(request.subdomain, "minecraft");
    assert_eq!(
        (request.target, request.client_ip, request.idle_timeout),
        (TargetKind::Auto, ClientIp::Auto, None)
    );
    let all = annotations(&[
        (SUBDOMAIN, "web"),
        (PORTS, "80/tcp"),
        (TARGET, "node-port"),
        (CLIENT_IP, "proxy-v2"),
        (IDLE_TIMEOUT, "10m"),
    ]);
    let request = keys.read(&all).unwrap().unwrap();
    assert_eq!(
        (request.target, request.client_ip, request.idle_timeout),
        (TargetKind::NodePort, ClientIp::ProxyV2, Some(600))
    );
    assert_eq!(keys.unknown(&all), []);
    assert_eq!(all.len(), KEYS.len(), "this test names every key");
    // Every word of the model can be written, and is what serde calls it.
    for (word, kind) in [
        ("auto", TargetKind::Auto),
        ("cluster-ip", TargetKind::ClusterIp),
        ("node-port", TargetKind::NodePort),
        ("pod-ip", TargetKind::PodIp),
    ] {
        let read = keys.read(&annotations(&[
            (SUBDOMAIN, "a"),
            (PORTS, "1/tcp"),
            (TARGET, word),
        ]));
        assert_eq!(read.unwrap().unwrap().target, kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), word);
    }
    for (word, kind) in [
        ("auto", ClientIp::Auto),
        ("transparent", ClientIp::Transparent),
        ("snat", ClientIp::Snat),
        ("proxy-v1", ClientIp::ProxyV1),
        ("proxy-v2", ClientIp::ProxyV2),
    ] {
        let read = keys.read(&annotations(&[
            (SUBDOMAIN, "a"),
            (PORTS, "1/tcp"),
            (CLIENT_IP, word),
        ]));
        assert_eq!(read.unwrap().unwrap().client_ip, kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), word);
    }
}

#[test]
fn a_service_that_asks_for_nothing_is_left_alone() {
    let keys = AnnotationKeys::default();
    assert_eq!(keys.read(&BTreeMap::new()), Ok(None));
    let foreign = BTreeMap::from([
        (
            "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
            "{}".to_owned(),
        ),
        ("expose.neverup.at.evil/ports".to_owned(), "80/tcp".to_owned()),
        ("notexpose.neverup.at/ports".to_owned(), "80/tcp".to_owned()),
    ]);
    assert_eq!(keys.read(&foreign), Ok(None));
    assert_eq!(keys.unknown(&foreign), []);
}

#[test]
fn annotations_that_are_wrong_and_what_is_said() {
    let keys = AnnotationKeys::default();
    let table: [(&[(&str, &str)], &[&str]); 6] = [
        (
            &[(SUBDOMAIN, "web")],
            &[
                "annotation expose.neverup.at/ports is missing; expose.neverup.at/subdomain alone exposes nothing",
            ],
        ),
        (
            &[(PORTS, "80/tcp")],
            &["annotation expose.neverup.at/subdomain is missing"],
        ),
        (
            &[(SUBDOMAIN, "Web_1"), (PORTS, "80")],
            &[
                "annotation expose.neverup.at/subdomain: \"Web_1\" is not a DNS label",
                "annotation expose.neverup.at/ports: \"80\" at character 1: the protocol is missing",
            ],
        ),
        (
            &[(SUBDOMAIN, "web"), (PORTS, "80/tcp"), (TARGET, "nodeport")],
            &[
                "annotation expose.neverup.at/target: \"nodeport\" is not one of auto, cluster-ip, node-port, pod-ip (did you mean \"node-port\"?)",
            ],
        ),
        (
            &[(SUBDOMAIN, "web"), (PORTS, "80/tcp"), (CLIENT_IP, "PROXY")],
            &[
                "annotation expose.neverup.at/client-ip: \"PROXY\" is not one of auto, transparent, snat, proxy-v1, proxy-v2",
            ],
        ),
        (
            &[(SUBDOMAIN, "web"), (PORTS, "80/tcp"), (IDLE_TIMEOUT, "300")],
            &[
                "annotation expose.neverup.at/idle-timeout: \"300\" is no duration: write a number with s, m or h",
            ],
        ),
    ];
    for (pairs, expected) in table {
        let errors = keys.read(&annotations(pairs)).expect_err("wrong");
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(
                error.to_string().contains(expected),
                "says     {error}\nexpected {expected}"
            );
        }
    }
}

#[test]
fn unknown_keys_are_reported_with_what_was_meant() {
    let keys = AnnotationKeys::new("lab.example.org").unwrap();
    let found = BTreeMap::from([
        ("lab.example.org/subdomian".to_owned(), "web".to_owned()),
        ("lab.example.org/colour".to_owned(), "red".to_owned()),
        ("lab.example.org/ports".to_owned(), "80/tcp".to_owned()),
        ("expose.neverup.at/port".to_owned(), "80/tcp".to_owned()),
    ]);
    let texts: Vec<_> = keys.unknown(&found).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "annotation \"lab.example.org/colour\" is not known and has no effect",
            "annotation \"lab.example.org/subdomian\" is not known and has no effect (did you mean \"subdomain\"?)",
        ]
    );
}

#[test]
fn prefixes() {
    for prefix in ["expose.neverup.at", "a", "x-1.example"] {
        assert_eq!(
            AnnotationKeys::new(prefix).unwrap().key(PORTS),
            format!("{prefix}/ports")
        );
    }
    for prefix in [
        "",
        "expose.neverup.at/",
        "Expose.at",
        "a..b",
        ".a",
        "a b",
        "-a",
        &"a.".repeat(200),
    ] {
        let error = AnnotationKeys::new(prefix).unwrap_err().to_string();
        assert!(error.contains("is not a DNS name"), "{error}");
    }
}

#[test]
fn durations() {
    for (text, seconds) in [
        ("1s", 1),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("1h1m1s", 3_661),
        (" 24h ", 86_400),
    ] {
        assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
    }
    for text in [
        "", "90", "s", "5x", "-5s", "5 m", "1.5h", "5m5m", "5s1h", "1h30", "h1", "５s",
    ] {
        let error = parse_seconds(text).expect_err(text).to_string();
        assert!(
            error.contains("is no duration: write a number with s, m or h"),
            "{text}: {error}"
        );
    }
    for text in ["0s", "0h0m", "24h1s", "86401s", "99999999999s", "4294967295h"] {
        let error = parse_seconds(text).expect_err(text).to_string();
        assert!(error.contains("is out of range: 1s to 24h"), "{text}: {error}");
    }
}
