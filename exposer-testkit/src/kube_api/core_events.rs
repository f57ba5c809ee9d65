//! Events as the core group shows them: the same objects under other names, which is what `kubectl describe` asks for.

use std::sync::Arc;

use serde_json::{Value, json};

use super::resource::Resource;
use super::select::Selector;
use super::store::Store;

/// Whether this is the core group's view of Events, which is only read.
#[must_use]
pub fn is_view(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "events"
}

/// The Events that `selector` matches, as `v1` has them.
#[must_use]
pub fn list(store: &Store, selector: &Selector) -> Vec<Value> {
    let Some(stored) = Resource::of_manifest("events.k8s.io/v1", "Event") else {
        return Vec::new();
    };
    store
        .all(stored, &Selector::default())
        .iter()
        .map(convert)
        .filter(|event| selector.matches(event))
        .collect()
}

fn convert(event: &Arc<Value>) -> Value {
    let field = |name: &str| event.get(name).cloned().unwrap_or(Value::Null);
    let created = event
        .pointer("/metadata/creationTimestamp")
        .cloned()
        .unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": field("metadata"),
        "involvedObject": field("regarding"),
        "reason": field("reason"),
        "message": field("note"),
        "type": field("type"),
        "action": field("action"),
        "eventTime": field("eventTime"),
        "firstTimestamp": created,
        "lastTimestamp": created,
        "count": 1,
        "reportingComponent": field("reportingController"),
        "reportingInstance": field("reportingInstance"),
        "source": { "component": field("reportingController") },
    })
}
