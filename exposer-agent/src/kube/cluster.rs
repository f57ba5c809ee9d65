//! What is known of the cluster, and what follows from it: a record, or a reason, for each annotated Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ::kube::runtime::watcher::Event;
use exposer_common::k8s::{AnnotationKeys, UnknownKey};
use exposer_common::model::{ServiceId, ServiceRecord};
use k8s_openapi::api::core::v1::{Node, Service};

use super::discover::{DiscoverError, discover, id_of};
use super::listing::Listing;
use super::{nodes, status};
use crate::desired::Desired;

/// Something that a watch has to say.
#[derive(Debug)]
pub enum Change {
    /// Of the Services in one of the watched places.
    Services {
        /// Number of the place.
        scope: usize,
        /// What happened.
        event: Box<Event<Service>>,
    },
    /// Of the nodes.
    Nodes(Box<Event<Node>>),
    /// The nodes can't be read, for now or for good.
    NodesUnavailable,
}

/// What an annotated Service comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its uid, which an Event has to name.
    pub uid: String,
    /// What the edge is told, or why nothing.
    pub verdict: Result<ServiceRecord, DiscoverError>,
    /// Annotations under the prefix that mean nothing.
    pub unknown: Vec<UnknownKey>,
}

/// What is kept of a Service.
#[derive(Debug)]
struct Kept {
    service: Service,
    /// Whether its status carries our condition.
    has_condition: bool,
}

/// All that the watches have said so far.
#[derive(Debug)]
pub struct Cluster {
    keys: AnnotationKeys,
    scopes: Vec<Listing<Kept>>,
    nodes: Listing<Vec<IpAddr>>,
    nodes_unavailable: bool,
}

impl Cluster {
    /// Nothing yet, of `scopes` places.
    #[must_use]
    pub fn new(keys: AnnotationKeys, scopes: usize) -> Self {
        Self {
            keys,
            scopes: std::iter::repeat_with(Listing::default).take(scopes).collect(),
            nodes: Listing::default(),
            nodes_unavailable: false,
        }
    }

    /// Takes in what a watch says.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Services { scope, event } => {
                let keys = &self.keys;
                if let Some(listing) = self.scopes.get_mut(scope) {
                    listing.apply(*event, |service| keep(service, keys));
                }
            }
            Change::Nodes(event) => self.nodes.apply(*event, |node| {
                let addresses = nodes::internal_addresses(&node);
                (node.metadata.name.unwrap_or_default(), Some(addresses))
            }),
            Change::NodesUnavailable => self.nodes_unavailable = true,
        }
    }

    /// Whether everything was listed once: before that, a Service that is missing may only not have been read yet.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scopes.iter().all(Listing::is_complete) && (self.nodes.is_complete() || self.nodes_unavailable)
    }

    /// What every Service with annotations of ours comes to.
    #[must_use]
    pub fn findings(&self) -> BTreeMap<ServiceId, Finding> {
        let addresses = nodes::in_order(self.nodes.iter());
        let mut findings = BTreeMap::new();
        for Kept { service, .. } in self.scopes.iter().flat_map(Listing::iter) {
            let verdict = match discover(service, &addresses, &self.keys) {
                Ok(None) => continue,
                Ok(Some(record)) => Ok(record),
                Err(error) => Err(error),
            };
            let annotations = service.metadata.annotations.as_ref();
            let finding = Finding {
                uid: service.metadata.uid.clone().unwrap_or_default(),
                verdict,
                unknown: annotations.map_or_else(Vec::new, |map| self.keys.unknown(map)),
            };
            findings.insert(id_of(service), finding);
        }
        findings
    }

    /// The Services whose status carries our condition although they ask for nothing any more.
    #[must_use]
    pub fn stale(&self) -> BTreeSet<ServiceId> {
        self.scopes
            .iter()
            .flat_map(Listing::iter)
            .filter(|kept| kept.has_condition && discover(&kept.service, &[], &self.keys) == Ok(None))
            .map(|kept| id_of(&kept.service))
            .collect()
    }
}

/// What the edges are told, of `findings`.
#[must_use]
pub fn desired(findings: &BTreeMap<ServiceId, Finding>) -> Desired {
    let valid = |(id, finding): (&ServiceId, &Finding)| {
        let record = finding.verdict.as_ref().ok()?;
        Some((id.clone(), record.clone()))
    };
    Desired {
        services: findings.iter().filter_map(valid).collect(),
    }
}

/// Of the Services of a whole cluster only those with annotations or a condition of ours are kept, and those without their ballast:
/// the agent's memory does not grow with the cluster.
fn keep(mut service: Service, keys: &AnnotationKeys) -> (String, Option<Kept>) {
    let key = id_of(&service).to_string();
    let ours = service.metadata.annotations.iter().flatten().any(|(name, _)| {
        name.strip_prefix(keys.prefix())
            .is_some_and(|rest| rest.starts_with('/'))
    });
    let conditions = service.status.take().and_then(|status| status.conditions);
    let has_condition = conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == status::condition_type(keys.prefix()));
    service.metadata.managed_fields = None;
    let kept = Kept {
        service,
        has_condition,
    };
    (key, (ours || has_condition).then_some(kept))
}
