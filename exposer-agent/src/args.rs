//! What was typed: flags and environment variables, as text. [`crate::config`] judges it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use exposer_common::k8s::DEFAULT_PREFIX;

const AFTER_HELP: &str = "\
Examples:
  exposer-agent run                                        in a pod, with its service account
  exposer-agent run --kubeconfig ~/.kube/config --server-addr 10.0.0.1 --token-file ./token
  exposer-agent run --server-addr 10.0.0.1:9090,10.0.1.1:9090     two edges
  exposer-agent parse --ports '25565/tcp+udp, 8080:http/tcp'      check an annotation

Every setting is a flag and an environment variable; the flag wins, and an empty variable counts as not set.

Exit status: 0 done; 1 failed; 2 wrong usage or setting.";

/// Watches annotated Kubernetes Services and reports them to Exposer's edge.
#[derive(Debug, Parser)]
#[command(name = "exposer-agent", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cluster and keep the edges informed, until SIGINT or SIGTERM.
    Run(Box<Settings>),
    /// Check a port annotation and show what it means; needs neither cluster nor edge.
    Parse(ParseArgs),
}

/// Settings of the agent.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Control address of the edge, or of several, comma separated; without a port: 9090.
    #[arg(
        long,
        env = "SERVER_ADDR",
        value_name = "HOST[:PORT],…",
        default_value = "10.0.0.1:9090"
    )]
    pub server_addr: String,
    /// Name of this agent: one name, one set of Services at the edge. A DNS label.
    #[arg(long, env = "AGENT_NAME", value_name = "NAME", default_value = "default")]
    pub agent_name: String,
    /// File with the token that is shared with the edge; read anew for every connection.
    #[arg(
        long,
        env = "TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/exposer/token"
    )]
    pub token_file: String,
    /// Domain below which subdomains live; used in messages.
    #[arg(
        long,
        env = "CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        default_value = "neverup.at"
    )]
    pub cluster_domain: String,
    /// Namespaces to watch, comma separated, or `all`.
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACE,…",
        default_value = "all"
    )]
    pub watch_namespaces: String,
    /// Prefix of the annotations.
    #[arg(long, env = "ANNOTATION_PREFIX", value_name = "PREFIX", default_value = DEFAULT_PREFIX)]
    pub annotation_prefix: String,
    /// How often everything is judged again and compared with the edge: 1s to 24h.
    #[arg(long, env = "SYNC_INTERVAL", value_name = "DURATION", default_value = "30s")]
    pub sync_interval: String,
    /// Address and port of /healthz and /readyz, or `off`.
    #[arg(
        long,
        env = "METRICS_ADDR",
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub metrics_addr: String,
    /// Kubeconfig to use [default: $KUBECONFIG, ~/.kube/config, else the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Least severe level that is logged: ERROR, WARN, INFO, DEBUG or TRACE.
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "INFO")]
    pub log_level: String,
    /// Form of a log line: `text` for people, `json` for collectors.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,
}

/// What to parse.
#[derive(Clone, Debug, Args)]
pub struct ParseArgs {
    /// The value of the `ports` annotation.
    #[arg(long, value_name = "PORTS")]
    pub ports: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}
