//! Whether the agent does its work: the cluster is read, and at least one edge knows us.
//!
//! A guard, not a flag: an edge counts for as long as its [`Welcomed`] lives, however the session ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::desired::DesiredReceiver;

/// Shared by all tasks.
#[derive(Clone, Debug)]
pub struct Readiness {
    desired: DesiredReceiver,
    /// How many sessions each edge has: none or one.
    edges: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// Held while an edge knows us.
#[derive(Debug)]
#[must_use = "the edge counts for as long as this lives"]
pub struct Welcomed {
    edge: String,
    edges: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// What holds the agent up, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the cluster was read; the number of Services that ask for exposure.
    pub services: Option<usize>,
    /// Each edge, and whether it knows us.
    pub edges: BTreeMap<String, bool>,
}

impl Report {
    /// Whether the agent does its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.services.is_some() && self.edges.values().any(|known| *known)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.services {
            Some(count) => writeln!(f, "cluster: read, {count} Services to expose")?,
            None => writeln!(f, "cluster: not read yet")?,
        }
        for (edge, known) in &self.edges {
            writeln!(
                f,
                "edge {edge}: {}",
                if *known { "connected" } else { "not connected" }
            )?;
        }
        Ok(())
    }
}

impl Readiness {
    /// No edge knows us yet.
    #[must_use]
    pub fn new(desired: DesiredReceiver, edges: impl IntoIterator<Item = String>) -> Self {
        let edges = edges.into_iter().map(|edge| (edge, 0)).collect();
        Self {
            desired,
            edges: Arc::new(Mutex::new(edges)),
        }
    }

    /// `edge` knows us until the guard is dropped.
    pub fn welcomed(&self, edge: &str) -> Welcomed {
        count(&self.edges, edge, |sessions| sessions.saturating_add(1));
        Welcomed {
            edge: edge.to_owned(),
            edges: Arc::clone(&self.edges),
        }
    }

    /// How things stand.
    #[must_use]
    pub fn report(&self) -> Report {
        let services = self
            .desired
            .borrow()
            .as_ref()
            .map(|desired| desired.services.len());
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            services,
            edges: edges
                .iter()
                .map(|(edge, sessions)| (edge.clone(), *sessions > 0))
                .collect(),
        }
    }
}

impl Drop for Welcomed {
    fn drop(&mut self) {
        count(&self.edges, &self.edge, |sessions| sessions.saturating_sub(1));
    }
}

fn count(edges: &Mutex<BTreeMap<String, usize>>, edge: &str, change: impl Fn(usize) -> usize) {
    // A counter is whole whatever happened to whoever held the lock.
    let mut edges = edges.lock().unwrap_or_else(PoisonError::into_inner);
    let sessions = edges.entry(edge.to_owned()).or_insert(0);
    *sessions = change(*sessions);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Desired;

    #[test]
    fn ready_is_a_read_cluster_and_an_edge_that_knows_us() {
        let (sender, receiver) = tokio::sync::watch::channel(None);
        let readiness = Readiness::new(receiver, ["a:1".to_owned(), "b:2".to_owned()]);
        assert!(!readiness.report().is_ready());
        let guard = readiness.welcomed("a:1");
        assert!(!readiness.report().is_ready(), "the cluster is not read");
        sender.send_replace(Some(Arc::new(Desired::default())));
        assert!(readiness.report().is_ready());
        assert_eq!(
            readiness.report().to_string(),
            "cluster: read, 0 Services to expose\nedge a:1: connected\nedge b:2: not connected\n"
        );
        drop(guard);
        assert!(!readiness.report().is_ready(), "the session ended");
    }
}
