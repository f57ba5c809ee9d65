//! What was typed: flags and environment variables, as text. [`crate::config`] judges it.
//!
//! Values stay text here on purpose: whatever is wrong with one is then said by one voice, which names the flag *and*
//! the variable, and an empty variable (`EXPOSER_TLS_CERT=`) means "not given" as it does in a systemd environment file.

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Where the packaged systemd unit reads its settings from.
pub const ENVIRONMENT_FILE: &str = "/etc/exposer/exposer-edge.env";

const AFTER_HELP: &str = "\
Examples:
  exposer-edge check                              what this machine offers, and what is missing
  exposer-edge run                                the daemon (under systemd: exposer-edge.service)
  exposer-edge status --output json | jq .services
  exposer-edge flows --port 25565                 kernel-path connections of one public port
  exposer-edge token add cabin --max-ports 4      a token for agent cabin alone, with a limit
  exposer-edge explain 25565/tcp --client 8.8.8.8  why a port answers a client as it does
  exposer-edge cleanup --dry-run                  what the kernel still holds after the daemon is gone

Every setting is a flag and an environment variable; the flag wins. The systemd unit reads
/etc/exposer/exposer-edge.env; to use the same settings in a shell:
  set -a; . /etc/exposer/exposer-edge.env; set +a

Exit status: 0 done; 1 failed, or `check` or `explain` found something to mend; 2 wrong usage or setting;
3 (`status`) the daemon does not answer.";

/// Forwards public ports of a VPS into a WireGuard tunnel, for Kubernetes Services at home.
#[derive(Debug, Parser)]
#[command(name = "exposer-edge", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: accept agents, open public ports, forward.
    Run(Box<Settings>),
    /// Say what this machine offers for these settings, and what to do about what is missing.
    Check(Box<CheckArgs>),
    /// Show agents, Services, ports and counters of the running daemon.
    Status(StatusArgs),
    /// Show the connections of the kernel path; works without the daemon.
    Flows(FlowsArgs),
    /// Say in plain words which path serves a public port and why not a better one, and what to do about what is wrong;
    /// works without the daemon.
    Explain(ExplainArgs),
    /// Detach the programs from the interfaces and remove the pinned maps: ends every kernel-path connection. Stop the
    /// daemon first (systemctl stop exposer-edge), else it attaches them again.
    Cleanup(CleanupArgs),
    /// Make, list or revoke tokens of single agents, each with limits. A running daemon takes changes up within seconds.
    Token(TokenArgs),
}

/// Settings of logging.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Least severe level that is logged: ERROR, WARN, INFO, DEBUG or TRACE.
    #[arg(
        long,
        env = "EXPOSER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "INFO",
        global = true
    )]
    pub log_level: String,
    /// Form of a log line: `text` for people and the journal, `json` for collectors.
    #[arg(
        long,
        env = "EXPOSER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: String,
}

/// Where the admin API is.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Address and port of the admin API (status, health, metrics).
    #[arg(
        long,
        env = "EXPOSER_ADMIN_ADDR",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:9091"
    )]
    pub admin_addr: String,
}

/// Where BPF objects are pinned.
#[derive(Debug, Args)]
pub struct BpffsArgs {
    /// Folder on the BPF file system for pinned maps and links.
    #[arg(long, env = "EXPOSER_BPFFS", value_name = "DIR", default_value = exposer_common::names::DEFAULT_BPFFS)]
    pub bpffs: String,
}

/// Settings of the daemon.
#[derive(Debug, Args)]
pub struct Settings {
    /// Address and port where agents connect: the edge's own address in the tunnel.
    #[arg(
        long,
        env = "EXPOSER_LISTEN_ADDR",
        value_name = "ADDR:PORT",
        default_value = "10.0.0.1:9090"
    )]
    pub listen_addr: String,
    /// Allow `--listen-addr` to be a public or wildcard address.
    #[arg(long, env = "EXPOSER_ALLOW_PUBLIC_LISTEN", action = ArgAction::SetTrue, value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_public_listen: bool,
    /// File with the token that agents must know; mode 0600.
    #[arg(
        long,
        env = "EXPOSER_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/etc/exposer/token"
    )]
    pub token_file: String,
    /// The WireGuard interface that leads home; it may come and go.
    #[arg(
        long,
        env = "EXPOSER_WIREGUARD_INTERFACE",
        value_name = "NAME",
        default_value = "wg0"
    )]
    pub wireguard_interface: String,
    /// The interface that clients come in by [default: that of the default route].
    #[arg(long, env = "EXPOSER_PUBLIC_INTERFACE", value_name = "NAME")]
    pub public_interface: Option<String>,
    /// Public addresses, comma separated [default: those of the public interface]. On clouds with 1:1 NAT: the address
    /// that the cloud translates, which names should point to.
    #[arg(long, env = "EXPOSER_PUBLIC_ADDRESS", value_name = "ADDR,…")]
    pub public_address: Option<String>,
    /// IPv4 source address of masqueraded packets [default: the tunnel interface's].
    #[arg(long, env = "EXPOSER_SNAT_ADDRESS", value_name = "ADDR")]
    pub snat_address: Option<String>,
    /// Source ports of masqueraded packets; must not overlap net.ipv4.ip_local_port_range.
    #[arg(
        long,
        env = "EXPOSER_SNAT_RANGE",
        value_name = "FIRST-LAST",
        default_value = "1024-29999"
    )]
    pub snat_range: String,
    /// First port that is given out when the wished one is taken.
    #[arg(
        long,
        env = "EXPOSER_PORT_RANGE_START",
        value_name = "PORT",
        default_value = "30000"
    )]
    pub port_range_start: String,
    /// Last port that is given out when the wished one is taken.
    #[arg(
        long,
        env = "EXPOSER_PORT_RANGE_END",
        value_name = "PORT",
        default_value = "32767"
    )]
    pub port_range_end: String,
    /// What carries packets: `auto` (kernel where it works, else userspace), `kernel` or `userspace`.
    #[arg(long, env = "EXPOSER_DATAPATH", value_name = "PATH", default_value = "auto")]
    pub datapath: String,
    /// Folder for the state file, so that Services keep their ports over a reboot.
    #[arg(
        long,
        env = "EXPOSER_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/exposer"
    )]
    pub state_dir: String,
    /// How long the Services of a vanished agent stay up (30s, 5m, 24h).
    #[arg(long, env = "EXPOSER_STALE_AFTER", value_name = "TIME", default_value = "24h")]
    pub stale_after: String,
    /// How long TCP connections of a removed Service may go on.
    #[arg(long, env = "EXPOSER_DRAIN", value_name = "TIME", default_value = "5m")]
    pub drain: String,
    /// Age of the daemon's heartbeat beyond which the kernel path makes no new connection.
    #[arg(
        long,
        env = "EXPOSER_HEARTBEAT_MAX_AGE",
        value_name = "TIME",
        default_value = "60s"
    )]
    pub heartbeat_max_age: String,
    /// New connections a second that one client address may make on the kernel path, four times as many at once; 0 = no
    /// limit. Beyond it TCP goes to the userspace path, with limits of its own, and datagrams that would begin a
    /// connection are dropped.
    #[arg(
        long,
        env = "EXPOSER_NEW_FLOWS_PER_SOURCE",
        value_name = "NUMBER",
        default_value = "500"
    )]
    pub new_flows_per_source: String,
    /// Certificate chain for TLS on the control channel. Not supported by this version: giving it is an error.
    #[arg(long, env = "EXPOSER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Private key for TLS on the control channel. Not supported by this version: giving it is an error.
    #[arg(long, env = "EXPOSER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Where the admin API listens.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Allow `--admin-addr` to be other than a loopback address: whoever reaches it reads the state of every Service.
    #[arg(long, env = "EXPOSER_ALLOW_REMOTE_ADMIN", action = ArgAction::SetTrue, value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_remote_admin: bool,
    /// Where BPF objects are pinned.
    #[command(flatten)]
    pub bpffs: BpffsArgs,
}

/// How a command prints its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document for scripts.
    Json,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The settings to check.
    #[command(flatten)]
    pub settings: Settings,
    /// A table for people, or JSON for scripts.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the admin API is.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Where BPF objects are pinned: looked at when the daemon does not answer.
    #[command(flatten)]
    pub bpffs: BpffsArgs,
    /// A table for people, or JSON for scripts.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Where BPF objects are pinned.
    #[command(flatten)]
    pub bpffs: BpffsArgs,
    /// Only flows whose Service matches: NAMESPACE/NAME, AGENT:NAMESPACE/NAME (both ask the daemon for the name) or
    /// the Service's number.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Only flows of this client address.
    #[arg(long, value_name = "ADDR")]
    pub client: Option<std::net::Ipv4Addr>,
    /// Only flows of this public port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Print at most so many flows; 0 = all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Where the admin API is: tells the names of Services.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// A table for people, or JSON for scripts.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Only this: a public port (25565 or 25565/tcp), or a Service (NAMESPACE/NAME or AGENT:NAMESPACE/NAME).
    #[arg(value_name = "PORT/PROTO | SERVICE")]
    pub target: Option<String>,
    /// Say what the first packet of a new connection from this address would meet, step by step.
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<std::net::IpAddr>,
    /// Where BPF objects are pinned.
    #[command(flatten)]
    pub bpffs: BpffsArgs,
    /// Where the admin API is: tells what the daemon knows.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Text for people, or JSON for scripts.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Where BPF objects are pinned.
    #[command(flatten)]
    pub bpffs: BpffsArgs,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The daemon's folder for its state; the tokens are in `tokens.d` within it.
    #[arg(
        long,
        env = "EXPOSER_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/exposer",
        global = true
    )]
    pub state_dir: String,
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token for one agent's name and print it: this is the only time that it is shown. The token for all agents
    /// (EXPOSER_TOKEN_FILE) does not open that name any more.
    Add(TokenAdd),
    /// Show whose tokens there are and what they allow; never the tokens.
    List {
        /// A table for people, or JSON for scripts.
        #[arg(long, short, value_enum, default_value = "table")]
        output: Output,
    },
    /// Delete the token of one agent: its connection ends, and its Services are closed.
    Revoke {
        /// The agent's name (AGENT_NAME).
        name: String,
    },
}

/// Arguments of `token add`.
#[derive(Debug, Args)]
pub struct TokenAdd {
    /// The agent's name (AGENT_NAME).
    pub name: String,
    /// Only Services of these namespaces [default: all].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Only these subdomains; one `*` stands for any text [default: all].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub subdomain: Vec<String>,
    /// Only these public ports, single ones and ranges [default: all].
    #[arg(long, value_name = "PORT|FIRST-LAST,…", value_delimiter = ',')]
    pub ports: Vec<String>,
    /// At most so many public ports at a time; TCP and UDP count each [default: no limit].
    #[arg(long, value_name = "N")]
    pub max_ports: Option<u32>,
    /// Replace the token and the limits that the agent has.
    #[arg(long)]
    pub replace: bool,
}
