//! What a test does to the cluster behind the server's back, and what it asks about it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::resource::{RESOURCES, Resource};
use super::select::Selector;
use super::server::KubeApi;
use super::status::Refused;
use super::{Request, documents, lock};

impl KubeApi {
    /// Applies every document of `manifests`, and gives the number of objects. RBAC objects and kustomizations are no
    /// data of this server and are passed over.
    ///
    /// # Errors
    ///
    /// Where a document is no YAML, of an unknown kind, or not valid; the documents before it are then applied.
    pub fn apply_yaml(&self, manifests: &str) -> anyhow::Result<usize> {
        let mut applied: usize = 0;
        for document in documents(manifests)? {
            let api_version = document
                .get("apiVersion")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if api_version.starts_with("rbac.authorization.k8s.io/") || api_version.starts_with("kustomize.")
            {
                continue;
            }
            self.apply(&document)?;
            applied = applied.saturating_add(1);
        }
        Ok(applied)
    }

    /// Creates or replaces one object, for example a `k8s_openapi` Service, and gives it as it is stored.
    ///
    /// # Errors
    ///
    /// Where it is of an unknown kind or not valid.
    pub fn apply(&self, object: &impl Serialize) -> anyhow::Result<Value> {
        let object = serde_json::to_value(object).context("serialising an object")?;
        let text = |key: &str| {
            object
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let resource = Resource::of_manifest(&api_version, &kind)
            .with_context(|| format!("{api_version} {kind} is not served here"))?;
        let stored = self
            .shared
            .store()
            .apply(resource, object)
            .map_err(|error| refused(&error))?;
        self.shared.written();
        Ok((*stored).clone())
    }

    /// Deletes a Service.
    ///
    /// # Errors
    ///
    /// Where there is none of this name.
    pub fn delete(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.delete_object("Service", namespace, name)
    }

    /// Deletes an object of any kind; `namespace` is empty for one without.
    ///
    /// # Errors
    ///
    /// Where the kind is unknown or there is no object of this name.
    pub fn delete_object(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let resource = resource_of_kind(kind)?;
        self.shared
            .store()
            .delete(resource, namespace, name)
            .map_err(|error| refused(&error))?;
        self.shared.written();
        Ok(())
    }

    /// All objects of a kind, by namespace and name.
    ///
    /// # Errors
    ///
    /// Where the kind is unknown.
    pub fn objects(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let resource = resource_of_kind(kind)?;
        let objects = self.shared.store().all(resource, &Selector::default());
        Ok(objects.iter().map(|object| (**object).clone()).collect())
    }

    /// Forgets the history: a watch that has to catch up is answered with 410.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Loses all objects, and the history with them; the next list is empty.
    pub fn lose_data(&self) {
        self.shared.store().lose_everything();
        self.shared.written();
    }

    /// Cuts every watch in the middle, as a broken network would.
    pub fn drop_watches(&self) {
        self.shared
            .drops
            .send_modify(|drops| *drops = drops.wrapping_add(1));
    }

    /// Time without an event after which a watch gets a bookmark (10 s from the start).
    pub fn set_bookmark_interval(&self, interval: Duration) {
        *lock(&self.shared.bookmarks) = interval;
    }

    /// Ends every watch after this time at the latest, whatever the client asked for.
    pub fn set_watch_limit(&self, limit: Duration) {
        *lock(&self.shared.watch_limit) = limit;
    }

    /// Refuses an expired watch with HTTP status 410, as some proxies and older servers do, instead of telling it within
    /// the watch.
    pub fn refuse_expired_watches(&self, refuse: bool) {
        self.shared.gone_at_once.store(refuse, Ordering::Relaxed);
    }

    /// From here on RBAC holds as the Roles and ClusterRoles in `manifests` say; see [`Access::enforce`](super::access::Access::enforce).
    ///
    /// # Errors
    ///
    /// Where the manifests can't be read.
    pub fn enforce_roles(&self, manifests: &str) -> anyhow::Result<()> {
        self.shared.access().enforce(manifests)
    }

    /// Answers 403 for this resource (plural name: `nodes`), or no longer.
    pub fn deny(&self, plural: &str, denied: bool) {
        self.shared.access().deny(plural, denied);
    }

    /// Answers 401 to everything, or no longer.
    pub fn reject_credentials(&self, reject: bool) {
        self.shared.access().reject_credentials(reject);
    }

    /// Every request so far that named a served resource, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// The events of `events.k8s.io/v1` that clients have published.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.objects("Event").unwrap_or_default()
    }

    /// Waits until an event that `wanted` accepts was published, and gives it.
    ///
    /// # Errors
    ///
    /// Where none came before `deadline`; the error lists those that are there.
    pub async fn wait_event(
        &self,
        deadline: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut writes = self.shared.writes.subscribe();
        let found = tokio::time::timeout(deadline, async {
            loop {
                if let Some(event) = self.events().into_iter().find(&mut wanted) {
                    return event;
                }
                // The sender lives as long as `self`.
                let _ = writes.changed().await;
            }
        });
        match found.await {
            Ok(event) => Ok(event),
            Err(_) => bail!(
                "no such event within {deadline:?}; there are: {:#?}",
                self.events()
            ),
        }
    }
}

fn resource_of_kind(kind: &str) -> anyhow::Result<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .with_context(|| format!("the kind {kind} is not served here"))
}

fn refused(refused: &Refused) -> anyhow::Error {
    anyhow::anyhow!("{} ({}): {}", refused.reason, refused.code, refused.message)
}
