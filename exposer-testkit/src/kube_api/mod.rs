//! A small Kubernetes API server for tests and the demo: the list/watch protocol as `kube` and `kubectl` speak it,
//! over a store in memory.
//!
//! | file | duty |
//! |---|---|
//! | [`server`] | the handle: start, stop, restart |
//! | [`cluster`] | what a test does to the cluster, and asks of it |
//! | [`resource`] | the kinds of objects that are served, and their paths |
//! | [`store`] | objects, revisions, paging, the window of changes |
//! | [`defaults`] | what the server fills in: uid, ClusterIP, node ports |
//! | [`select`] | label and field selectors |
//! | [`access`] | credentials and RBAC rules |
//! | [`watch`] | the event stream of a watch |
//! | [`core_events`] | Events as `kubectl describe` asks for them |
//! | [`http`] | requests and answers |
//! | [`status`] | refusals |
//!
//! A server runs in a thread with a runtime of its own, so that [`KubeApi::stop`] really closes every connection, and
//! so that a listener which was bound inside a network namespace works from anywhere. It speaks plain HTTP.

pub mod access;
pub mod cluster;
pub mod core_events;
pub mod defaults;
pub mod http;
pub mod resource;
pub mod select;
pub mod server;
pub mod status;
pub mod store;
pub mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch as tokio_watch;

use access::Access;
use store::Store;

pub use server::KubeApi;

/// One request that the server judged, for tests that ask what a client really called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// RBAC verb: `list`, `watch`, `create`.
    pub verb: &'static str,
    /// Plural name of the resource.
    pub resource: &'static str,
    /// Namespace in the path, if any.
    pub namespace: Option<String>,
    /// Object name in the path, if any.
    pub name: Option<String>,
    /// `status`, for example.
    pub subresource: Option<String>,
    /// Whether credentials and RBAC let it through.
    pub allowed: bool,
}

/// What the handle and the server thread share.
#[derive(Debug)]
pub struct Shared {
    store: Mutex<Store>,
    access: Mutex<Access>,
    requests: Mutex<Vec<Request>>,
    bookmarks: Mutex<Duration>,
    /// Longest life of a watch.
    watch_limit: Mutex<Duration>,
    /// Whether an expired watch is refused as a request.
    gone_at_once: AtomicBool,
    /// The newest revision; watches wake up by it.
    writes: tokio_watch::Sender<u64>,
    /// Rises when all watches are to be cut.
    drops: tokio_watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        lock(&self.access)
    }

    fn bookmark_interval(&self) -> Duration {
        *lock(&self.bookmarks)
    }

    fn watch_limit(&self) -> Duration {
        *lock(&self.watch_limit)
    }

    fn gone_at_once(&self) -> bool {
        self.gone_at_once.load(Ordering::Relaxed)
    }

    fn note(&self, request: Request) {
        lock(&self.requests).push(request);
    }

    /// Wakes whoever waits for a write.
    fn written(&self) {
        let revision = self.store().revision();
        self.writes.send_replace(revision);
    }
}

/// The non-empty documents of a YAML text, as JSON.
fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("reading a YAML document")?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}
