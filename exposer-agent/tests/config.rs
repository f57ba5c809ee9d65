//! Settings: the defaults of the documentation, every form that is right, and what is said of the rest.
#![expect(clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use exposer_agent::args::{Cli, Command, Settings};
use exposer_agent::config::Config;
use exposer_agent::telemetry::{LogConfig, LogFormat};

/// Settings as a command line gives them, in an environment without any of the variables.
fn settings(flags: &[&str]) -> Settings {
    let bare = Cli::command().mut_subcommand("run", |run| run.mut_args(|arg| arg.env(Resettable::Reset)));
    let matches = bare
        .try_get_matches_from(["exposer-agent", "run"].iter().chain(flags))
        .unwrap();
    let cli = Cli::from_arg_matches(&matches).unwrap();
    let Command::Run(settings) = cli.command else {
        panic!("run is run")
    };
    *settings
}

fn config(flags: &[&str]) -> Config {
    Config::from_settings(&settings(flags)).unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

fn servers(text: &str) -> Vec<String> {
    config(&["--server-addr", text])
        .servers
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn defaults() {
    let config = config(&[]);
    assert_eq!(config.servers[0].to_string(), "10.0.0.1:9090");
    assert_eq!(config.cluster_domain, "neverup.at");
    assert_eq!(config.namespaces, [""; 0], "all");
    assert_eq!(config.sync_interval, Duration::from_secs(30));
    assert_eq!(config.agent_name, "default");
    assert_eq!(config.token_file.to_str(), Some("/var/run/secrets/exposer/token"));
    assert_eq!(config.keys.prefix(), "expose.neverup.at");
    assert_eq!(config.metrics, Some("0.0.0.0:8080".parse().unwrap()));
    let log = LogConfig::from_settings(&settings(&[])).unwrap();
    assert_eq!(
        (log.level.to_string().as_str(), log.format),
        ("info", LogFormat::Text)
    );
}

#[test]
fn empty_means_not_given() {
    let flags = [
        "--server-addr=",
        "--agent-name=",
        "--token-file=",
        "--cluster-domain= ",
        "--watch-namespaces=",
        "--annotation-prefix=",
        "--sync-interval=",
        "--metrics-addr=",
        "--log-level=",
        "--log-format=",
    ];
    assert_eq!(config(&flags), config(&[]));
    LogConfig::from_settings(&settings(&flags)).unwrap();
}

#[test]
fn addresses_of_edges() {
    assert_eq!(servers("10.0.0.1"), ["10.0.0.1:9090"]);
    assert_eq!(servers("edge.example.org:1234"), ["edge.example.org:1234"]);
    assert_eq!(servers("Edge.Example.org."), ["Edge.Example.org.:9090"]);
    assert_eq!(servers("fd00::1"), ["[fd00::1]:9090"]);
    assert_eq!(servers("[fd00::1]"), ["[fd00::1]:9090"]);
    assert_eq!(servers("[fd00::1]:91"), ["[fd00::1]:91"]);
    assert_eq!(
        servers(" 10.0.0.1:9090 , 10.0.1.1 ,"),
        ["10.0.0.1:9090", "10.0.1.1:9090"]
    );
}

#[test]
fn lists_and_words() {
    assert_eq!(
        config(&["--watch-namespaces", "games, default,games"]).namespaces,
        ["default", "games"]
    );
    assert_eq!(config(&["--watch-namespaces", "all"]).namespaces, [""; 0]);
    assert_eq!(config(&["--metrics-addr", "off"]).metrics, None);
    assert_eq!(
        config(&["--metrics-addr", ":9"]).metrics,
        Some("0.0.0.0:9".parse().unwrap())
    );
    assert_eq!(
        config(&["--sync-interval", "1m30s"]).sync_interval,
        Duration::from_secs(90)
    );
    assert_eq!(
        config(&["--cluster-domain", "example.org."]).cluster_domain,
        "example.org"
    );
}

#[test]
fn what_is_wrong_is_quoted_with_both_names() {
    let table: [(&[&str], &str); 17] = [
        (
            &["--server-addr", "10.0.0.1:0"],
            "--server-addr (SERVER_ADDR) is \"10.0.0.1:0\": \"10.0.0.1:0\" is no edge",
        ),
        (
            &["--server-addr", "edge:port"],
            "\"edge:port\" is no edge: write host or host:port",
        ),
        (&["--server-addr", "a b"], "is no edge"),
        (&["--server-addr", "edge:99999"], "is no edge"),
        (&["--server-addr", "http://edge"], "is no edge"),
        (&["--server-addr", ","], "no edge is named"),
        (
            &["--server-addr", "edge,edge:9090"],
            "the edge edge:9090 is named twice",
        ),
        (
            &["--agent-name", "My Home"],
            "--agent-name (AGENT_NAME) is \"My Home\": it must be a DNS label",
        ),
        (
            &["--cluster-domain", "neverup..at"],
            "--cluster-domain (CLUSTER_DOMAIN)",
        ),
        (&["--watch-namespaces", "all,games"], "\"all\" stands alone"),
        (
            &["--watch-namespaces", "Games"],
            "\"Games\" is no namespace's name",
        ),
        (&["--watch-namespaces", ","], "no namespace is named"),
        (
            &["--annotation-prefix", "expose.neverup.at/"],
            "--annotation-prefix (ANNOTATION_PREFIX)",
        ),
        (
            &["--sync-interval", "30"],
            "--sync-interval (SYNC_INTERVAL) is \"30\": \"30\" is no duration",
        ),
        (&["--sync-interval", "0s"], "out of range: 1s to 24h"),
        (
            &["--metrics-addr", "8080"],
            "--metrics-addr (METRICS_ADDR) is \"8080\": it must be an address with a port",
        ),
        (
            &["--metrics-addr", "localhost:8080"],
            "it must be an address with a port",
        ),
    ];
    for (flags, expected) in table {
        let error = Config::from_settings(&settings(flags))
            .expect_err(&format!("{flags:?}"))
            .to_string();
        assert!(
            error.contains(expected),
            "{flags:?}\n  says     {error}\n  expected {expected}"
        );
    }
    for flags in [["--log-level", "loud"], ["--log-format", "xml"]] {
        let error = LogConfig::from_settings(&settings(&flags))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(flags[0]) && error.contains(flags[1]), "{error}");
    }
}

/// Every setting is a flag and an environment variable, and has a line in the help.
#[test]
fn help_is_complete() {
    Cli::command().debug_assert();
    let mut command = Cli::command();
    let run = command.find_subcommand_mut("run").unwrap();
    for argument in run.get_arguments() {
        let name = argument.get_id().as_str();
        assert!(argument.get_help().is_some(), "{name} has no help");
        if name != "kubeconfig" && name != "help" {
            let variable = argument
                .get_env()
                .unwrap_or_else(|| panic!("{name} has no variable"));
            assert_eq!(variable.to_str().unwrap(), name.to_ascii_uppercase());
        }
    }
}
