//! The command line as a person meets it: help, wrong settings, exit statuses.
#![expect(
    clippy::expect_used,
    reason = "test code: a failed expectation is a failed test"
)]

use std::process::{Command, Output};

/// Runs the binary without any setting from outside.
fn edge(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exposer-edge"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXPOSER_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every setting of the documentation (REQUIREMENTS A8), its flag, and its default.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("EXPOSER_LISTEN_ADDR", "--listen-addr", "10.0.0.1:9090"),
    ("EXPOSER_LOG_LEVEL", "--log-level", "INFO"),
    ("EXPOSER_LOG_FORMAT", "--log-format", "text"),
    ("EXPOSER_WIREGUARD_INTERFACE", "--wireguard-interface", "wg0"),
    ("EXPOSER_PORT_RANGE_START", "--port-range-start", "30000"),
    ("EXPOSER_PORT_RANGE_END", "--port-range-end", "32767"),
    ("EXPOSER_TLS_CERT", "--tls-cert", "Not supported by this version"),
    ("EXPOSER_TLS_KEY", "--tls-key", "Not supported by this version"),
    ("EXPOSER_TOKEN_FILE", "--token-file", "/etc/exposer/token"),
    (
        "EXPOSER_PUBLIC_INTERFACE",
        "--public-interface",
        "that of the default route",
    ),
    (
        "EXPOSER_PUBLIC_ADDRESS",
        "--public-address",
        "those of the public interface",
    ),
    ("EXPOSER_SNAT_ADDRESS", "--snat-address", "the tunnel interface's"),
    ("EXPOSER_SNAT_RANGE", "--snat-range", "1024-29999"),
    ("EXPOSER_STATE_DIR", "--state-dir", "/var/lib/exposer"),
    ("EXPOSER_ADMIN_ADDR", "--admin-addr", "127.0.0.1:9091"),
    ("EXPOSER_DATAPATH", "--datapath", "auto"),
    ("EXPOSER_BPFFS", "--bpffs", "/sys/fs/bpf/exposer"),
    ("EXPOSER_STALE_AFTER", "--stale-after", "24h"),
    ("EXPOSER_DRAIN", "--drain", "5m"),
    ("EXPOSER_HEARTBEAT_MAX_AGE", "--heartbeat-max-age", "60s"),
    ("EXPOSER_NEW_FLOWS_PER_SOURCE", "--new-flows-per-source", "500"),
];

#[test]
fn help_names_every_setting_with_flag_variable_and_default() {
    for verb in ["run", "check"] {
        let help = text(&edge(&[verb, "--help"], &[]).stdout)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for (variable, flag, default) in SETTINGS {
            for part in [&format!("[env: {variable}=]"), *flag, *default] {
                assert!(help.contains(part), "{verb} --help lacks \"{part}\":\n{help}");
            }
        }
    }
}

#[test]
fn the_environment_file_of_the_unit_names_every_setting() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/exposer-edge.env");
    let file = std::fs::read_to_string(path).expect("deploy/systemd/exposer-edge.env is there");
    for (variable, _, default) in SETTINGS {
        let line = file
            .lines()
            .find(|line| line.trim_start_matches('#').starts_with(&format!("{variable}=")));
        let line = line.unwrap_or_else(|| panic!("the environment file lacks {variable}"));
        let value = line.split_once('=').expect("a variable has a value").1;
        if !default.contains(' ') {
            assert_eq!(value, *default, "{variable}");
        }
    }
    let known = file
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='));
    for (name, _) in known.filter(|(name, _)| name.starts_with("EXPOSER_")) {
        let allowed = ["EXPOSER_ALLOW_PUBLIC_LISTEN", "EXPOSER_ALLOW_REMOTE_ADMIN"];
        assert!(
            allowed.contains(&name) || SETTINGS.iter().any(|(variable, ..)| *variable == name),
            "{name}"
        );
    }
}

#[test]
fn the_top_help_shows_verbs_examples_and_exit_statuses() {
    let output = edge(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for part in [
        "run ",
        "check ",
        "status ",
        "flows ",
        "cleanup ",
        "Examples:",
        "Exit status:",
        "exposer-edge.env",
    ] {
        assert!(help.contains(part), "\"{part}\" is not in\n{help}");
    }
}

/// Arguments, variables, and what the error must name.
type Wrong = (
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

#[test]
fn a_wrong_setting_ends_with_2_and_says_what_to_do() {
    let table: &[Wrong] = &[
        (
            &["run"],
            &[("EXPOSER_LISTEN_ADDR", "0.0.0.0:9090")],
            &["EXPOSER_LISTEN_ADDR", "10.0.0.1:9090"],
        ),
        (
            &["run", "--tls-cert", "/c", "--tls-key", "/k"],
            &[],
            &["not supported by this version"],
        ),
        (
            &["check", "--port-range-start", "9", "--port-range-end", "8"],
            &[],
            &["9", "8", "exchange the two"],
        ),
        (
            &["run"],
            &[("EXPOSER_LOG_LEVEL", "loud")],
            &["EXPOSER_LOG_LEVEL", "\"loud\"", "INFO"],
        ),
        (
            &["status", "--admin-addr", "nowhere"],
            &[],
            &["EXPOSER_ADMIN_ADDR", "\"nowhere\""],
        ),
        (&["run", "--no-such-flag"], &[], &["--no-such-flag"]),
        (&["flows", "--port", "70000"], &[], &["--port", "70000"]),
        (&[], &[], &["Usage:"]),
    ];
    for (arguments, variables, parts) in table {
        let output = edge(arguments, variables);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        for part in *parts {
            assert!(
                error.contains(part),
                "{arguments:?}: \"{part}\" is not in: {error}"
            );
        }
    }
}

#[test]
fn the_flag_wins_over_the_variable() {
    let output = edge(
        &["run", "--drain", "wrong-flag"],
        &[("EXPOSER_DRAIN", "wrong-variable")],
    );
    assert!(
        text(&output.stderr).contains("\"wrong-flag\""),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn run_without_a_token_says_how_to_make_one() {
    let output = edge(&["run", "--token-file", "/nonexistent/token"], &[]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("/nonexistent/token") && error.contains("openssl rand"),
        "{error}"
    );
}
