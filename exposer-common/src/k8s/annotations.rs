//! The annotations of a Service: which there are, and what they say.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::DEFAULT_PREFIX;
use super::duration::{DurationError, parse_seconds};
use super::ports::{PortSpec, PortsError, parse_ports};
use super::suggest::{Suggestion, nearest};
use crate::model::{ClientIp, MAX_LABEL, MAX_NAME, TargetKind, is_dns_label, shorten};

/// Key of the subdomain, after prefix and slash.
pub const SUBDOMAIN: &str = "subdomain";
/// Key of the port list.
pub const PORTS: &str = "ports";
/// Key of the target kind.
pub const TARGET: &str = "target";
/// Key of what the pod sees as the client.
pub const CLIENT_IP: &str = "client-ip";
/// Key of the idle timeout.
pub const IDLE_TIMEOUT: &str = "idle-timeout";
/// Every key.
pub const KEYS: [&str; 5] = [SUBDOMAIN, PORTS, TARGET, CLIENT_IP, IDLE_TIMEOUT];

const TARGETS: [&str; 4] = ["auto", "cluster-ip", "node-port", "pod-ip"];
const CLIENT_IPS: [&str; 5] = ["auto", "transparent", "snat", "proxy-v1", "proxy-v2"];

/// Why a text is no annotation prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "annotation prefix \"{0}\" is not a DNS name; write it without a slash, such as {DEFAULT_PREFIX} (a-z, 0-9, '-' and \
     '.', at most {MAX_NAME} characters)"
)]
pub struct PrefixError(String);

/// The annotation keys under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationKeys {
    prefix: String,
}

impl Default for AnnotationKeys {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
        }
    }
}

/// What the annotations of one Service ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name under the cluster domain.
    pub subdomain: String,
    /// The public ports, at least one.
    pub ports: Vec<PortSpec>,
    /// Which address of the cluster to use.
    pub target: TargetKind,
    /// What the pod is to see as the client.
    pub client_ip: ClientIp,
    /// Idle timeout in seconds.
    pub idle_timeout: Option<u32>,
}

/// An annotation under the prefix that means nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("annotation \"{key}\" is not known and has no effect{suggestion}")]
pub struct UnknownKey {
    /// The whole key, shortened.
    pub key: String,
    /// What was probably meant.
    pub suggestion: Suggestion,
}

/// What is wrong with an annotation. The text names its key and quotes its value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnnotationError {
    /// One of the two required annotations is there, the other is not.
    #[error("annotation {missing} is missing; {present} alone exposes nothing")]
    Missing {
        /// The whole key that is missing.
        missing: String,
        /// The whole key that is there.
        present: String,
    },
    /// The subdomain is no DNS label.
    #[error(
        "annotation {key}: \"{value}\" is not a DNS label: use a-z, 0-9 and '-', not at either end, at most {MAX_LABEL} \
         characters"
    )]
    Subdomain {
        /// The whole key.
        key: String,
        /// The value, shortened.
        value: String,
    },
    /// The port list is wrong.
    #[error("annotation {key}: {source}")]
    Ports {
        /// The whole key.
        key: String,
        /// What is wrong.
        source: PortsError,
    },
    /// Not one of the words that are allowed.
    #[error("annotation {key}: \"{value}\" is not one of {allowed}{suggestion}")]
    Word {
        /// The whole key.
        key: String,
        /// The value, shortened.
        value: String,
        /// The words, separated by commas.
        allowed: String,
        /// What was probably meant.
        suggestion: Suggestion,
    },
    /// The duration is wrong.
    #[error("annotation {key}: {source}")]
    Duration {
        /// The whole key.
        key: String,
        /// What is wrong.
        source: DurationError,
    },
}

impl AnnotationKeys {
    /// The keys under `prefix`.
    ///
    /// # Errors
    ///
    /// When it is not a DNS name.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        if prefix.is_empty() || prefix.len() > MAX_NAME || !prefix.split('.').all(is_dns_label) {
            return Err(PrefixError(shorten(prefix)));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
        })
    }

    /// The prefix, without a slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The whole key of `name`, one of [`KEYS`].
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Reads what the annotations ask for; `None` if neither required key is there, which is most Services.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, so that a person can mend it at once.
    pub fn read(
        &self,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Request>, Vec<AnnotationError>> {
        let value = |name: &str| annotations.get(&self.key(name)).map(String::as_str);
        let (subdomain, ports) = match (value(SUBDOMAIN), value(PORTS)) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(vec![self.missing(PORTS, SUBDOMAIN)]),
            (None, Some(_)) => return Err(vec![self.missing(SUBDOMAIN, PORTS)]),
            (Some(subdomain), Some(ports)) => (subdomain, ports),
        };
        let mut errors = Vec::new();
        let subdomain = keep(self.subdomain(subdomain), &mut errors);
        let ports = keep(
            parse_ports(ports).map_err(|source| AnnotationError::Ports {
                key: self.key(PORTS),
                source,
            }),
            &mut errors,
        );
        let target = keep(
            self.word(TARGET, value(TARGET), &TARGETS).map(target_kind),
            &mut errors,
        );
        let client_ip = keep(
            self.word(CLIENT_IP, value(CLIENT_IP), &CLIENT_IPS).map(client_ip),
            &mut errors,
        );
        let idle_timeout = keep(
            value(IDLE_TIMEOUT)
                .map(parse_seconds)
                .transpose()
                .map_err(|source| AnnotationError::Duration {
                    key: self.key(IDLE_TIMEOUT),
                    source,
                }),
            &mut errors,
        );
        match (subdomain, ports, target, client_ip, idle_timeout) {
            (Some(subdomain), Some(ports), Some(target), Some(client_ip), Some(idle_timeout)) => {
                Ok(Some(Request {
                    subdomain,
                    ports,
                    target,
                    client_ip,
                    idle_timeout,
                }))
            }
            _ => Err(errors),
        }
    }

    /// The keys under the prefix that mean nothing, most likely misspelt.
    #[must_use]
    pub fn unknown(&self, annotations: &BTreeMap<String, String>) -> Vec<UnknownKey> {
        annotations
            .keys()
            .filter_map(|key| {
                let name = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
                (!KEYS.contains(&name)).then(|| UnknownKey {
                    key: shorten(key),
                    suggestion: Suggestion(nearest(name, &KEYS)),
                })
            })
            .collect()
    }

    fn missing(&self, missing: &str, present: &str) -> AnnotationError {
        AnnotationError::Missing {
            missing: self.key(missing),
            present: self.key(present),
        }
    }

    fn subdomain(&self, value: &str) -> Result<String, AnnotationError> {
        let trimmed = value.trim();
        if is_dns_label(trimmed) {
            return Ok(trimmed.to_owned());
        }
        Err(AnnotationError::Subdomain {
            key: self.key(SUBDOMAIN),
            value: shorten(trimmed),
        })
    }

    /// The allowed word that `value` is; none without a value.
    fn word(
        &self,
        name: &str,
        value: Option<&str>,
        allowed: &'static [&'static str],
    ) -> Result<Option<&'static str>, AnnotationError> {
        let Some(trimmed) = value.map(str::trim) else {
            return Ok(None);
        };
        match allowed.iter().find(|word| **word == trimmed) {
            Some(word) => Ok(Some(word)),
            None => Err(AnnotationError::Word {
                key: self.key(name),
                value: shorten(trimmed),
                allowed: allowed.join(", "),
                suggestion: Suggestion(nearest(trimmed, allowed)),
            }),
        }
    }
}

impl fmt::Display for AnnotationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

fn keep<T>(result: Result<T, AnnotationError>, errors: &mut Vec<AnnotationError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

fn target_kind(word: Option<&str>) -> TargetKind {
    match word {
        Some("cluster-ip") => TargetKind::ClusterIp,
        Some("node-port") => TargetKind::NodePort,
        Some("pod-ip") => TargetKind::PodIp,
        _ => TargetKind::Auto,
    }
}

fn client_ip(word: Option<&str>) -> ClientIp {
    match word {
        Some("transparent") => ClientIp::Transparent,
        Some("snat") => ClientIp::Snat,
        Some("proxy-v1") => ClientIp::ProxyV1,
        Some("proxy-v2") => ClientIp::ProxyV2,
        _ => ClientIp::Auto,
    }
}
