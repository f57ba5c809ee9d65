//! The body of a watch: one JSON event a line, from a revision on, until its time is up or it is dropped.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::resource::Resource;
use super::select::Selector;
use super::store::Change;

/// Marks the end of the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this revision.
    After(u64),
    /// With an ADDED event for everything that is there; `marked`: a bookmark says where these end.
    Initial {
        /// Whether the client asked for `sendInitialEvents`.
        marked: bool,
    },
}

/// What the client asked for.
#[derive(Debug)]
pub struct Wish {
    /// Which kind of objects.
    pub resource: &'static Resource,
    /// Which of them.
    pub selector: Selector,
    /// From where on.
    pub start: Start,
    /// Whether bookmarks are welcome.
    pub bookmarks: bool,
    /// After what time the watch ends.
    pub timeout: Duration,
}

struct Cursor {
    shared: Arc<Shared>,
    wish: Wish,
    /// The revision up to which everything is in `lines` or sent.
    position: u64,
    lines: VecDeque<String>,
    finished: bool,
    ends: Instant,
    writes: watch::Receiver<u64>,
    drops: watch::Receiver<u64>,
}

/// Serves one watch.
pub fn serve(shared: Arc<Shared>, wish: Wish) -> impl Stream<Item = io::Result<String>> + Send + 'static {
    let (writes, drops) = (shared.writes.subscribe(), shared.drops.subscribe());
    let now = Instant::now();
    let mut cursor = Cursor {
        ends: now.checked_add(wish.timeout).unwrap_or(now),
        position: 0,
        lines: VecDeque::new(),
        finished: false,
        shared,
        wish,
        writes,
        drops,
    };
    cursor.begin();
    futures::stream::unfold(cursor, |mut cursor| async move {
        let line = cursor.next().await?;
        Some((line, cursor))
    })
}

impl Cursor {
    fn begin(&mut self) {
        let marked = match self.wish.start {
            Start::After(revision) => {
                self.position = revision;
                return;
            }
            Start::Initial { marked } => marked,
        };
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        for object in store.all(self.wish.resource, &self.wish.selector) {
            self.lines.push_back(line("ADDED", &object));
        }
        self.position = store.revision();
        if marked {
            self.bookmark(json!({ INITIAL_EVENTS_END: "true" }));
        }
    }

    /// The next line; none where the watch ended in peace; an error cuts the connection.
    async fn next(&mut self) -> Option<io::Result<String>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            if self.finished {
                return None;
            }
            self.collect();
            if !self.lines.is_empty() {
                continue;
            }
            let quiet = self.shared.bookmark_interval();
            tokio::select! {
                _ = self.drops.changed() => {
                    self.finished = true;
                    return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch was dropped")));
                }
                _ = self.writes.changed() => {}
                () = tokio::time::sleep(quiet) => self.bookmark(json!({})),
                () = tokio::time::sleep_until(self.ends) => {
                    self.finished = true;
                    self.bookmark(json!({}));
                }
            }
        }
    }

    /// Takes what was written since `position`.
    fn collect(&mut self) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        match store.since(self.position) {
            Ok(changes) => {
                let Wish {
                    resource, selector, ..
                } = &self.wish;
                let events = changes
                    .filter(|change| change.resource == *resource)
                    .filter_map(|change| event(change, selector));
                self.lines.extend(events);
                self.position = self.position.max(store.revision());
            }
            // As the API server does: errors of a watch that has begun are events, whatever their code.
            Err(expired) => {
                self.lines.push_back(line("ERROR", &expired.status()));
                self.finished = true;
            }
        }
    }

    fn bookmark(&mut self, annotations: Value) {
        if !self.wish.bookmarks {
            return;
        }
        let mut metadata = json!({ "resourceVersion": self.position.to_string() });
        if annotations.as_object().is_some_and(|map| !map.is_empty())
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.insert("annotations".to_owned(), annotations);
        }
        let Resource { kind, .. } = self.wish.resource;
        let api_version = self.wish.resource.api_version();
        let object = json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
        self.lines.push_back(line("BOOKMARK", &object));
    }
}

/// What one change means to one who sees only what `selector` lets through.
fn event(change: &Change, selector: &Selector) -> Option<String> {
    let seen = |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|object| selector.matches(object));
    match (seen(&change.before), seen(&change.after)) {
        (false, true) => change.after.as_ref().map(|object| line("ADDED", object)),
        (true, true) => change.after.as_ref().map(|object| line("MODIFIED", object)),
        (true, false) => {
            let mut last = (**change.before.as_ref()?).clone();
            if let Some(metadata) = last.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("resourceVersion".to_owned(), json!(change.revision.to_string()));
            }
            Some(line("DELETED", &last))
        }
        (false, false) => None,
    }
}

fn line(kind: &str, object: &Value) -> String {
    let mut text = json!({ "type": kind, "object": object }).to_string();
    text.push('\n');
    text
}
