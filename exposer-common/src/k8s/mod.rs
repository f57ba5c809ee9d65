//! The annotation grammar: from the annotations of a Service to what it asks for.
//!
//! Two annotations are the whole user interface, three more are for the curious. The prefix is configurable, by default
//! [`DEFAULT_PREFIX`]:
//!
//! | annotation | value | example |
//! |---|---|---|
//! | `expose.neverup.at/subdomain` | one DNS label; required | `minecraft` |
//! | `expose.neverup.at/ports` | public ports, see [`ports`]; required | `25565/tcp+udp, 8080:http/tcp` |
//! | `expose.neverup.at/target` | `auto`, `cluster-ip`, `node-port` or `pod-ip` | `node-port` |
//! | `expose.neverup.at/client-ip` | `auto`, `transparent`, `snat`, `proxy-v1` or `proxy-v2` | `proxy-v2` |
//! | `expose.neverup.at/idle-timeout` | a duration, see [`duration`] | `10m` |
//!
//! [`annotations`] reads them, [`ports`] parses the port list, and [`mod@resolve`] matches it with the ports that the
//! Service really has. Every error quotes the offending text and says what is right: it ends in an Event that
//! `kubectl describe svc` shows to the person who wrote it.

pub mod annotations;
pub mod duration;
pub mod ports;
mod ports_error;
pub mod resolve;
mod suggest;

pub use annotations::{AnnotationError, AnnotationKeys, PrefixError, Request, UnknownKey};
pub use ports::{PortSpec, PortsError, Protocols, ServicePortRef, parse_ports};
pub use resolve::{ResolveError, ServicePortInfo, resolve};
pub use suggest::Suggestion;

/// Prefix of the annotations unless another is configured.
pub const DEFAULT_PREFIX: &str = "expose.neverup.at";
