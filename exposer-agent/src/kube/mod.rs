//! The Kubernetes side of the agent: from watched Services to the [`Desired`](crate::desired::Desired) state, and from
//! the edge's outcomes back to Events.
//!
//! ```text
//!  watch ──Change──► cluster ──findings──► Desired (watch channel) ──► edge client
//!                       │                                                   │
//!                       └──► notice, status ──Report──► events ◄──Outcomes──┘
//! ```
//!
//! | file | duty |
//! |---|---|
//! | [`client`] | configuration of the client; errors in words |
//! | [`watch`] | the watches and their retries |
//! | [`listing`] | one watch's objects, across relists |
//! | [`cluster`] | all that is known, and what follows from it |
//! | [`discover`], [`nodes`] | one Service, one node (pure) |
//! | [`notice`], [`ledger`] | what its owner is told, and was told (pure) |
//! | [`events`], [`status`] | telling it |
//! | [`reconcile`] | the loop |

pub mod client;
pub mod cluster;
pub mod discover;
pub mod events;
pub mod ledger;
pub mod listing;
pub mod nodes;
pub mod notice;
pub mod reconcile;
pub mod status;
pub mod watch;

use std::time::Duration;

use exposer_common::k8s::AnnotationKeys;

pub use client::{ConnectError, connect};
pub use reconcile::run;

/// What the Kubernetes side has to know.
#[derive(Clone, Debug)]
pub struct KubeSettings {
    /// Namespaces to watch (`WATCH_NAMESPACES`), each once; empty means all.
    pub namespaces: Vec<String>,
    /// The annotations (`ANNOTATION_PREFIX`).
    pub keys: AnnotationKeys,
    /// How often everything is judged again, and what could not be told is told again (`SYNC_INTERVAL`).
    pub resync: Duration,
    /// The domain under which subdomains live (`CLUSTER_DOMAIN`), for the texts.
    pub domain: String,
}
