//! Conversion tables: what was typed → what is valid, or which text the operator reads.

use clap::Parser as _;

use super::*;
use crate::args::{Cli, Command};

/// The settings of `exposer-edge run` with these flags.
fn settings(flags: &[&str]) -> Settings {
    let line = ["exposer-edge", "run"].iter().chain(flags);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Run(settings) => *settings,
        other => panic!("{other:?}"),
    }
}

fn convert(flags: &[&str]) -> Result<Config, ConfigError> {
    Config::from_settings(&settings(flags))
}

#[test]
fn defaults_are_those_of_the_documentation() {
    assert_eq!(
        convert(&[]).unwrap(),
        Config {
            listen: "10.0.0.1:9090".parse().unwrap(),
            admin: "127.0.0.1:9091".parse().unwrap(),
            token_file: "/etc/exposer/token".into(),
            wireguard_interface: "wg0".into(),
            public_interface: None,
            public_addresses: vec![],
            snat_address: None,
            snat_range: PortRange::new(1024, 29_999).unwrap(),
            dynamic_ports: PortRange::new(30_000, 32_767).unwrap(),
            datapath: DatapathChoice::Auto,
            state_dir: "/var/lib/exposer".into(),
            bpffs: "/sys/fs/bpf/exposer".into(),
            stale_after: Duration::from_secs(24 * 3600),
            drain: Duration::from_secs(300),
            heartbeat_max_age: Duration::from_secs(60),
            new_flows_per_source: 500,
        }
    );
}

#[test]
fn every_setting_arrives() {
    let config = convert(&[
        "--listen-addr=[fd00::1]:9000",
        "--admin-addr=[::1]:9001",
        "--token-file=/t",
        "--wireguard-interface=wg-home",
        "--public-interface=ens3",
        "--public-address=203.0.113.9, 198.51.100.1,203.0.113.9",
        "--snat-address=10.9.0.1",
        "--snat-range=2000-2999",
        "--port-range-start=40000",
        "--port-range-end=40000",
        "--datapath=kernel",
        "--state-dir=/s",
        "--bpffs=/b",
        "--stale-after=1h 30m",
        "--drain=0s",
        "--heartbeat-max-age=5s",
        "--new-flows-per-source=0",
    ])
    .unwrap();
    assert_eq!(config.listen.to_string(), "[fd00::1]:9000");
    assert_eq!(config.admin.to_string(), "[::1]:9001");
    assert_eq!(config.public_interface.as_deref(), Some("ens3"));
    let addresses: Vec<String> = config.public_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["198.51.100.1", "203.0.113.9"]);
    assert_eq!(config.snat_address, Some("10.9.0.1".parse().unwrap()));
    assert_eq!(config.dynamic_ports.count(), 1);
    assert_eq!(config.datapath, DatapathChoice::Kernel);
    assert_eq!(config.stale_after, Duration::from_secs(5400));
    assert_eq!(config.drain, Duration::ZERO);
}

#[test]
fn empty_means_not_given() {
    let flags = [
        "--tls-cert=",
        "--tls-key=",
        "--public-interface=",
        "--public-address= ",
        "--snat-address=",
    ];
    assert_eq!(convert(&flags), convert(&[]));
}

/// Flags → parts that the text must have: the flag, the offending value, what to do.
const WRONG: &[(&[&str], &[&str])] = &[
    (
        &["--listen-addr=10.0.0.1"],
        &[
            "--listen-addr (EXPOSER_LISTEN_ADDR)",
            "\"10.0.0.1\"",
            "ADDRESS:PORT",
        ],
    ),
    (&["--listen-addr=10.0.0.1:0"], &["port 0"]),
    (
        &["--listen-addr=0.0.0.0:9090"],
        &["0.0.0.0", "public or wildcard", "EXPOSER_ALLOW_PUBLIC_LISTEN"],
    ),
    (&["--listen-addr=[::]:9090"], &["::", "public or wildcard"]),
    (&["--listen-addr=[::ffff:8.8.8.8]:9090"], &["public or wildcard"]),
    (
        &["--listen-addr=203.0.113.1:9090"],
        &["203.0.113.1", "10.0.0.1:9090"],
    ),
    (
        &["--admin-addr=10.0.0.1:9091"],
        &["10.0.0.1", "loopback", "EXPOSER_ALLOW_REMOTE_ADMIN"],
    ),
    (
        &["--listen-addr=127.0.0.1:1", "--admin-addr=127.0.0.1:1"],
        &["both 127.0.0.1:1"],
    ),
    (
        &["--port-range-start=5", "--port-range-end=4"],
        &["EXPOSER_PORT_RANGE_START", "5", "4", "exchange"],
    ),
    (&["--port-range-start=x"], &["--port-range-start", "\"x\""]),
    (&["--port-range-end=70000"], &["--port-range-end", "\"70000\""]),
    (&["--port-range-start=0"], &["port 0"]),
    (&["--snat-range=29999-1024"], &["EXPOSER_SNAT_RANGE", "exchange"]),
    (&["--snat-range=5000"], &["FIRST-LAST"]),
    (&["--snat-range=80-5000"], &["80-5000", "1024"]),
    (&["--snat-address=fd00::1"], &["IPv4"]),
    (&["--snat-address=127.0.0.1"], &["could not answer"]),
    (
        &["--snat-address=203.0.113.1", "--public-address=203.0.113.1"],
        &["public address as well"],
    ),
    (
        &["--public-address=203.0.113.1,,"],
        &["EXPOSER_PUBLIC_ADDRESS", "\"\""],
    ),
    (
        &["--public-address=0.0.0.0"],
        &["0.0.0.0", "give that of the VPS"],
    ),
    (
        &["--wireguard-interface=wg0/1"],
        &["EXPOSER_WIREGUARD_INTERFACE", "\"wg0/1\"", "ip link"],
    ),
    (&["--wireguard-interface="], &["EXPOSER_WIREGUARD_INTERFACE"]),
    (&["--wireguard-interface=abcdefghijklmnop"], &["1-15 bytes"]),
    (&["--public-interface=wg0"], &["both \"wg0\""]),
    (&["--datapath=xdp"], &["EXPOSER_DATAPATH", "\"xdp\"", "userspace"]),
    (&["--drain=5"], &["EXPOSER_DRAIN", "\"5\"", "5m"]),
    (&["--stale-after=-1h"], &["EXPOSER_STALE_AFTER"]),
    (
        &["--heartbeat-max-age=1s"],
        &["EXPOSER_HEARTBEAT_MAX_AGE", "1s", "60s"],
    ),
    (&["--state-dir=exposer"], &["EXPOSER_STATE_DIR", "absolute"]),
    (&["--bpffs=./x"], &["EXPOSER_BPFFS", "absolute"]),
    (&["--token-file="], &["EXPOSER_TOKEN_FILE", "absolute"]),
    (
        &["--tls-cert=/c"],
        &["EXPOSER_TLS_CERT", "without", "EXPOSER_TLS_KEY"],
    ),
    (
        &["--tls-key=/k"],
        &["EXPOSER_TLS_KEY", "without", "EXPOSER_TLS_CERT"],
    ),
    (
        &["--tls-cert=/c", "--tls-key=/k"],
        &["not supported by this version", "Remove both"],
    ),
];

#[test]
fn what_is_wrong_is_said() {
    for (flags, parts) in WRONG {
        let text = match convert(flags) {
            Err(error) => error.to_string(),
            Ok(config) => panic!("{flags:?} was taken: {config:?}"),
        };
        for part in *parts {
            assert!(text.contains(part), "{flags:?}: \"{part}\" is not in: {text}");
        }
    }
}

#[test]
fn a_public_address_is_taken_when_allowed() {
    let flags = ["--listen-addr=0.0.0.0:9090", "--allow-public-listen"];
    assert_eq!(convert(&flags).unwrap().listen.to_string(), "0.0.0.0:9090");
    let flags = ["--admin-addr=10.0.0.1:9091", "--allow-remote-admin"];
    assert_eq!(convert(&flags).unwrap().admin.to_string(), "10.0.0.1:9091");
}

#[test]
fn private_addresses_are_told_from_public_ones() {
    for private in [
        "10.1.2.3",
        "172.31.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "127.0.0.2",
        "169.254.1.1",
        "fd12::1",
        "fe80::1",
        "::1",
    ] {
        assert!(parse::is_private(private.parse().unwrap()), "{private}");
    }
    for public in [
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "0.0.0.0",
        "2001:db8::1",
        "::",
        "::ffff:8.8.8.8",
    ] {
        assert!(!parse::is_private(public.parse().unwrap()), "{public}");
    }
}

#[test]
fn the_snat_range_keeps_clear_of_local_ports() {
    let range = |text: &str| text.parse::<PortRange>().unwrap();
    let config = convert(&[]).unwrap();
    assert_eq!(config.check_host(range("32768-60999")), Ok(()));
    let text = config.check_host(range("1024-65535")).unwrap_err().to_string();
    for part in ["EXPOSER_SNAT_RANGE", "1024-29999", "1024-65535", "sysctl"] {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
    assert_eq!(
        convert(&["--datapath=userspace"])
            .unwrap()
            .check_host(range("1024-65535")),
        Ok(())
    );
}

#[test]
fn the_kernels_range_is_readable() {
    assert!(local_port_range().unwrap().count() > 0);
}

#[test]
fn given_addresses_are_published_instead_of_those_served_on() {
    let environment = Environment {
        public_addresses: vec!["172.31.5.5".parse().unwrap()],
        ..Environment::default()
    };
    assert_eq!(
        convert(&[]).unwrap().published_addresses(&environment),
        environment.public_addresses
    );
    let config = convert(&["--public-address=203.0.113.9"]).unwrap();
    assert_eq!(config.published_addresses(&environment), config.public_addresses);
}
