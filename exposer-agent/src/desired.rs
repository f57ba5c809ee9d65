//! What passes between the Kubernetes side ([`crate::kube`]) and the edge side ([`crate::edge_client`]).
//!
//! Two plain values and nothing else: the state that is wanted, published whole through a
//! `tokio::sync::watch` channel so that a slow edge skips what was overtaken, and the outcomes that come back.
//!
//! The watch holds `None` until the first list of every watched namespace is complete: a half-read cluster must never
//! look like one in which Services were deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use exposer_common::model::{ServiceId, ServiceRecord};
use exposer_common::proto::message::ServiceOutcome;
use tokio::sync::{mpsc, watch};

/// Everything that the cluster wants of its edges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The valid records, each under its own [`ServiceRecord::id`].
    pub services: BTreeMap<ServiceId, ServiceRecord>,
}

/// What one edge made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes {
    /// The edge as it was configured (`host:port`), to tell several apart.
    pub edge: String,
    /// Whatever the edge acknowledged, Service by Service.
    pub outcomes: Vec<ServiceOutcome>,
}

/// The receiving end of the desired state; `None` until the first list is complete.
pub type DesiredReceiver = watch::Receiver<Option<Arc<Desired>>>;
/// The sending end of the desired state.
pub type DesiredSender = watch::Sender<Option<Arc<Desired>>>;
/// Where outcomes go, to be published as Events.
pub type OutcomesSender = mpsc::Sender<Outcomes>;
