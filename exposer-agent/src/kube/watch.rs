//! The watches: Services in every chosen place, and the nodes where that is allowed.
//!
//! `kube`'s watcher does the protocol: list in pages, watch from there with bookmarks, list again after 410. This file
//! adds what it leaves open: which error is worth a word, and what happens after it.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use ::kube::runtime::{WatchStreamExt, watcher};
use ::kube::{Api, Client, Resource};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::client::{explain, is_expired, is_forbidden};
use super::cluster::Change;

/// After so many seconds the API server ends a watch and the agent resumes it where it stood; 5 seconds later the agent
/// does so by itself. A network that went away without a word is therefore noticed within about two minutes.
pub const WATCH_SECONDS: u32 = 120;
/// How long the agent waits before it asks again for nodes that it may not read.
const NODES_AGAIN: Duration = Duration::from_secs(300);
/// Pause before a watch is made anew whose revision is gone.
const ANEW: Duration = Duration::from_secs(1);

/// Starts all watches; they end with `sink`, or when the set is dropped. No `namespaces` means all of them. The number
/// of a place in [`Change::Services`] is its index in `namespaces`, or 0.
#[must_use]
pub fn spawn(client: &Client, namespaces: &[String], sink: &mpsc::Sender<Change>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let places: Vec<Option<&String>> = if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces.iter().map(Some).collect()
    };
    for (scope, namespace) in places.into_iter().enumerate() {
        let (api, place) = match namespace {
            Some(name) => (
                Api::<Service>::namespaced(client.clone(), name),
                format!("namespace {name}"),
            ),
            None => (Api::all(client.clone()), "all namespaces".to_owned()),
        };
        let sink = sink.clone();
        watches.spawn(async move {
            let wrap = |event| Change::Services {
                scope,
                event: Box::new(event),
            };
            while let End::Anew = follow(&api, "services", &place, OnForbidden::KeepAsking, &sink, wrap).await
            {
                tokio::time::sleep(ANEW).await;
            }
        });
    }
    watches.spawn(follow_nodes(Api::all(client.clone()), sink.clone()));
    watches
}

/// Nodes are a help, not a need: without them `target: node-port` has no address, everything else works.
async fn follow_nodes(api: Api<Node>, sink: mpsc::Sender<Change>) {
    let mut told = false;
    loop {
        match follow(
            &api,
            "nodes",
            "the cluster",
            OnForbidden::GiveUp,
            &sink,
            |event| Change::Nodes(Box::new(event)),
        )
        .await
        {
            End::Closed => return,
            End::Anew => tokio::time::sleep(ANEW).await,
            End::Forbidden => {
                if !told {
                    info!(
                        component = "kube",
                        action = "degrade",
                        "the agent may not read nodes, so Services with target node-port have no address to send to; \
                         everything else works. To allow it, apply deploy/kubernetes/optional/clusterrole-nodes.yaml"
                    );
                    told = true;
                }
                if sink.send(Change::NodesUnavailable).await.is_err() {
                    return;
                }
                tokio::time::sleep(NODES_AGAIN).await;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnForbidden {
    KeepAsking,
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody listens any more.
    Closed,
    /// RBAC says no.
    Forbidden,
    /// The watch has to begin from a new list.
    Anew,
}

/// Follows one watch until it ends; errors are told once and retried with exponential back-off (0.8 s to 30 s).
async fn follow<K>(
    api: &Api<K>,
    resource: &'static str,
    place: &str,
    on_forbidden: OnForbidden,
    sink: &mpsc::Sender<Change>,
    wrap: impl Fn(watcher::Event<K>) -> Change,
) -> End
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(api.clone(), config).default_backoff());
    let mut trouble: Option<String> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // `Init` only says that a list is about to be asked for.
                if !matches!(event, watcher::Event::Init) && trouble.take().is_some() {
                    info!(
                        component = "kube",
                        action = "recovered",
                        resource,
                        place,
                        "the watch works again"
                    );
                }
                if sink.send(wrap(event)).await.is_err() {
                    return End::Closed;
                }
            }
            Err(error) if on_forbidden == OnForbidden::GiveUp && is_forbidden(&error) => {
                return End::Forbidden;
            }
            Err(error) if is_expired(&error) => {
                debug!(component = "kube", action = "relist", resource, place, %error, "the watch's history is gone");
                // kube's watcher lists again after a 410 within the stream, but would ask for the same revision for
                // ever where a proxy answers the request itself with 410.
                if matches!(error, watcher::Error::WatchStartFailed(_)) {
                    return End::Anew;
                }
            }
            // A connection that was cut is resumed where it stood; only if that fails is there something to say.
            Err(error @ watcher::Error::WatchFailed(_)) => {
                debug!(component = "kube", action = "resume", resource, place, %error, "the watch was cut");
            }
            Err(error) => {
                let text = explain(resource, place, &error);
                if trouble.as_ref() != Some(&text) {
                    warn!(component = "kube", action = "retry", resource, place, "{text}");
                    trouble = Some(text);
                }
                if resource == "nodes" && sink.send(Change::NodesUnavailable).await.is_err() {
                    return End::Closed;
                }
            }
        }
    }
    End::Anew
}
