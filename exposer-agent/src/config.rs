//! What is valid: the settings as the rest of the program uses them. Every check of a value and between values is in
//! [`Config::from_settings`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use exposer_common::k8s::duration::parse_seconds;
use exposer_common::k8s::{AnnotationKeys, DEFAULT_PREFIX};
use exposer_common::model::{MAX_NAME, is_dns_label, shorten};
use exposer_common::proto::DEFAULT_PORT;
use thiserror::Error;

use crate::args::Settings;

/// Where an edge is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerAddr {
    host: String,
    port: u16,
}

impl ServerAddr {
    /// A host with its port.
    #[must_use]
    pub const fn new(host: String, port: u16) -> Self {
        Self { host, port }
    }

    /// Name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host`, `host:port`, an IPv6 address, or one in brackets with a port.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then(|| Self::new(address.ip().to_string(), address.port()));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Some(Self::new(address.to_string(), DEFAULT_PORT));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, port.parse().ok()?)
            }
            Some(_) => return None,
            None => (text, DEFAULT_PORT),
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let valid = name.len() <= MAX_NAME
            && name
                .split('.')
                .all(|label| is_dns_label(&label.to_ascii_lowercase()));
        (valid && port != 0).then(|| Self::new(host.to_owned(), port))
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Settings of the agent, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The edges, each once, at least one.
    pub servers: Vec<ServerAddr>,
    /// The agent's name, a DNS label.
    pub agent_name: String,
    /// Where the token is; read by whoever needs it, never kept here.
    pub token_file: PathBuf,
    /// Domain below which subdomains live.
    pub cluster_domain: String,
    /// Namespaces to watch, each once; empty means all.
    pub namespaces: Vec<String>,
    /// The annotations.
    pub keys: AnnotationKeys,
    /// How often everything is judged again.
    pub sync_interval: Duration,
    /// Where probes are answered, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The kubeconfig that was asked for.
    pub kubeconfig: Option<PathBuf>,
}

/// A setting that can't be used: which, what it is, and what is right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("--{flag} ({variable}) is \"{value}\": {problem}")]
pub struct ConfigError {
    /// The flag, without dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// What was given, shortened.
    pub value: String,
    /// What is right.
    pub problem: String,
}

/// A setting as it was typed, with its two names.
#[derive(Clone, Copy)]
struct Typed<'a> {
    flag: &'static str,
    variable: &'static str,
    text: &'a str,
}

impl<'a> Typed<'a> {
    /// Empty text means that nothing was given.
    fn new(flag: &'static str, variable: &'static str, text: &'a str, default: &'a str) -> Self {
        let trimmed = text.trim();
        Self {
            flag,
            variable,
            text: if trimmed.is_empty() { default } else { trimmed },
        }
    }

    fn wrong(self, problem: impl fmt::Display) -> ConfigError {
        ConfigError {
            flag: self.flag,
            variable: self.variable,
            value: shorten(self.text),
            problem: problem.to_string(),
        }
    }

    /// The items between commas, white space and empty ones left out.
    fn items(self) -> impl Iterator<Item = &'a str> {
        self.text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
    }
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// The first setting that can't be used.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let Settings {
            server_addr,
            agent_name,
            token_file,
            cluster_domain,
            watch_namespaces,
            annotation_prefix,
            sync_interval,
            metrics_addr,
            kubeconfig,
            log_level: _,
            log_format: _,
        } = settings;
        let prefix = Typed::new(
            "annotation-prefix",
            "ANNOTATION_PREFIX",
            annotation_prefix,
            DEFAULT_PREFIX,
        );
        let interval = Typed::new("sync-interval", "SYNC_INTERVAL", sync_interval, "30s");
        let seconds = parse_seconds(interval.text).map_err(|error| interval.wrong(error))?;
        let token = Typed::new(
            "token-file",
            "TOKEN_FILE",
            token_file,
            "/var/run/secrets/exposer/token",
        );
        Ok(Self {
            servers: servers(Typed::new(
                "server-addr",
                "SERVER_ADDR",
                server_addr,
                "10.0.0.1:9090",
            ))?,
            agent_name: label(Typed::new("agent-name", "AGENT_NAME", agent_name, "default"))?,
            token_file: PathBuf::from(token.text),
            cluster_domain: domain(Typed::new(
                "cluster-domain",
                "CLUSTER_DOMAIN",
                cluster_domain,
                "neverup.at",
            ))?,
            namespaces: namespaces(Typed::new(
                "watch-namespaces",
                "WATCH_NAMESPACES",
                watch_namespaces,
                "all",
            ))?,
            keys: AnnotationKeys::new(prefix.text).map_err(|error| prefix.wrong(error))?,
            sync_interval: Duration::from_secs(seconds.into()),
            metrics: metrics(Typed::new(
                "metrics-addr",
                "METRICS_ADDR",
                metrics_addr,
                "0.0.0.0:8080",
            ))?,
            kubeconfig: kubeconfig.clone(),
        })
    }
}

fn servers(typed: Typed<'_>) -> Result<Vec<ServerAddr>, ConfigError> {
    let mut servers = Vec::new();
    for item in typed.items() {
        let server = ServerAddr::parse(item).ok_or_else(|| {
            typed.wrong(format!(
                "\"{}\" is no edge: write host or host:port, such as 10.0.0.1:9090",
                shorten(item)
            ))
        })?;
        if servers.contains(&server) {
            return Err(typed.wrong(format!("the edge {server} is named twice")));
        }
        servers.push(server);
    }
    if servers.is_empty() {
        return Err(typed.wrong("no edge is named; write host or host:port"));
    }
    Ok(servers)
}

fn label(typed: Typed<'_>) -> Result<String, ConfigError> {
    if is_dns_label(typed.text) {
        return Ok(typed.text.to_owned());
    }
    Err(typed.wrong("it must be a DNS label: a-z, 0-9 and '-', not at either end, at most 63 characters"))
}

fn domain(typed: Typed<'_>) -> Result<String, ConfigError> {
    let domain = typed.text.strip_suffix('.').unwrap_or(typed.text);
    if domain.len() <= MAX_NAME && domain.split('.').all(is_dns_label) {
        return Ok(domain.to_owned());
    }
    Err(typed.wrong("it must be a domain in lower case, such as neverup.at"))
}

fn namespaces(typed: Typed<'_>) -> Result<Vec<String>, ConfigError> {
    let items: BTreeSet<_> = typed.items().collect();
    if items.contains("all") {
        if items.len() > 1 {
            return Err(typed.wrong("\"all\" stands alone; write it, or the names of namespaces"));
        }
        return Ok(Vec::new());
    }
    if let Some(wrong) = items.iter().find(|item| !is_dns_label(item)) {
        return Err(typed.wrong(format!("\"{}\" is no namespace's name", shorten(wrong))));
    }
    if items.is_empty() {
        return Err(typed.wrong("no namespace is named; write \"all\", or the names of namespaces"));
    }
    Ok(items.into_iter().map(str::to_owned).collect())
}

fn metrics(typed: Typed<'_>) -> Result<Option<SocketAddr>, ConfigError> {
    if typed.text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let text = typed.text;
    // `:8080` is how Kubernetes people write every address.
    let address = text
        .strip_prefix(':')
        .map_or_else(|| text.to_owned(), |port| format!("0.0.0.0:{port}"));
    address
        .parse()
        .map(Some)
        .map_err(|_| typed.wrong("it must be an address with a port, such as 0.0.0.0:8080, or \"off\""))
}
