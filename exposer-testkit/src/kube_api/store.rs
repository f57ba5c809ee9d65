//! The objects, their revisions, and the window of changes from which watches are served.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::defaults::{Allocator, now};
use super::resource::Resource;
use super::select::Selector;
use super::status::Refused;

type Key = (&'static Resource, String, String);

/// One change: what was there before and after. Both absent does not occur.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// Which kind of object.
    pub resource: &'static Resource,
    /// The object before it, if there was one.
    pub before: Option<Arc<Value>>,
    /// The object after it; for a deletion, none.
    pub after: Option<Arc<Value>>,
}

/// What a list answers.
#[derive(Debug)]
pub struct Page {
    /// The objects of this page.
    pub items: Vec<Arc<Value>>,
    /// The revision at which all pages of this list were taken.
    pub revision: u64,
    /// Token of the next page, and how many objects are left.
    pub next: Option<(u64, usize)>,
}

/// All state of the server. Every write raises the revision by one.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    window: VecDeque<Change>,
    revision: u64,
    compacted: u64,
    pages: BTreeMap<u64, (u64, VecDeque<Arc<Value>>)>,
    tokens: u64,
    allocator: Allocator,
}

impl Store {
    /// The newest revision.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The object of this name.
    ///
    /// # Errors
    ///
    /// 404 where there is none.
    pub fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Refused> {
        self.objects
            .get(&(resource, namespace.to_owned(), name.to_owned()))
            .cloned()
            .ok_or_else(|| Refused::not_found(resource, name))
    }

    /// All objects of a kind that `selector` matches, by namespace and name.
    #[must_use]
    pub fn all(&self, resource: &'static Resource, selector: &Selector) -> Vec<Arc<Value>> {
        self.objects
            .iter()
            .filter(|((kind, ..), object)| *kind == resource && selector.matches(object))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// The first page of a list; a `limit` of 0 means all.
    #[must_use]
    pub fn list(&mut self, resource: &'static Resource, selector: &Selector, limit: usize) -> Page {
        let items = self.all(resource, selector).into();
        self.page(self.revision, items, limit)
    }

    /// A further page, as it was when the list began.
    ///
    /// # Errors
    ///
    /// 410 where the token was forgotten by a compaction.
    pub fn next_page(&mut self, token: u64, limit: usize) -> Result<Page, Refused> {
        let (revision, items) = self
            .pages
            .remove(&token)
            .ok_or_else(|| Refused::expired(token, self.compacted))?;
        Ok(self.page(revision, items, limit))
    }

    fn page(&mut self, revision: u64, mut items: VecDeque<Arc<Value>>, limit: usize) -> Page {
        let take = if limit == 0 {
            items.len()
        } else {
            limit.min(items.len())
        };
        let rest = items.split_off(take);
        let next = (!rest.is_empty()).then(|| {
            self.tokens = self.tokens.saturating_add(1);
            let left = rest.len();
            self.pages.insert(self.tokens, (revision, rest));
            (self.tokens, left)
        });
        Page {
            items: items.into(),
            revision,
            next,
        }
    }

    /// Makes an object.
    ///
    /// # Errors
    ///
    /// 409 where the name is taken, 422 where the object is not valid.
    pub fn create(
        &mut self,
        resource: &'static Resource,
        namespace: Option<&str>,
        mut object: Value,
    ) -> Result<Arc<Value>, Refused> {
        self.allocator.complete(resource, namespace, &mut object, None)?;
        let key = key_of(resource, &object);
        if self.objects.contains_key(&key) {
            return Err(Refused::already_exists(resource, &key.2));
        }
        Ok(self.write(&key, object))
    }

    /// Replaces an object; with `metadata.resourceVersion` given, only if that is still the newest.
    ///
    /// # Errors
    ///
    /// 404 where there is none, 409 where it changed meanwhile, 422 where the new one is not valid.
    pub fn replace(
        &mut self,
        resource: &'static Resource,
        namespace: Option<&str>,
        mut object: Value,
    ) -> Result<Arc<Value>, Refused> {
        let key = key_in(resource, namespace, &object);
        let before = self.get(resource, &key.1, &key.2)?;
        if let Some(seen) = object.pointer("/metadata/resourceVersion")
            && before.pointer("/metadata/resourceVersion") != Some(seen)
        {
            return Err(Refused::conflict(resource, &key.2));
        }
        self.allocator
            .complete(resource, namespace, &mut object, Some(&before))?;
        Ok(self.write(&key, object))
    }

    /// Merges `patch` into an object (RFC 7386).
    ///
    /// # Errors
    ///
    /// 404 where there is none, 422 where the outcome is not valid.
    pub fn patch(
        &mut self,
        resource: &'static Resource,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Arc<Value>, Refused> {
        let before = self.get(resource, namespace.unwrap_or_default(), name)?;
        let mut object = (*before).clone();
        merge(&mut object, patch);
        self.replace(resource, namespace, object)
    }

    /// Creates or replaces, as `kubectl apply` does for one who owns every field.
    ///
    /// # Errors
    ///
    /// 422 where the object is not valid.
    pub fn apply(&mut self, resource: &'static Resource, object: Value) -> Result<Arc<Value>, Refused> {
        let namespace = object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| resource.namespaced.then(|| "default".to_owned()));
        let key = key_in(resource, namespace.as_deref(), &object);
        if self.objects.contains_key(&key) {
            self.replace(resource, namespace.as_deref(), object)
        } else {
            self.create(resource, namespace.as_deref(), object)
        }
    }

    /// Deletes an object, or marks it as being deleted while it has finalizers.
    ///
    /// # Errors
    ///
    /// 404 where there is none.
    pub fn delete(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Refused> {
        let before = self.get(resource, namespace, name)?;
        let key = (resource, namespace.to_owned(), name.to_owned());
        if has_finalizers(&before) {
            let mut object = (*before).clone();
            merge(&mut object, &json!({"metadata": {"deletionTimestamp": now()}}));
            return Ok(self.write(&key, object));
        }
        Ok(self.remove(&key, &before))
    }

    /// Deletes everything, as the loss of the cluster's data would; the revision goes on, as after a restore with
    /// `etcdutl --bump-revision --mark-compacted`.
    pub fn lose_everything(&mut self) {
        self.objects.clear();
        self.revision = self.revision.saturating_add(1_000_000);
        self.compact();
    }

    /// Forgets the window of changes, and every list that is not finished.
    pub fn compact(&mut self) {
        self.window.clear();
        self.pages.clear();
        self.compacted = self.revision;
    }

    /// The changes after `revision`, oldest first.
    ///
    /// # Errors
    ///
    /// 410 where some of them were forgotten.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Refused> {
        if revision < self.compacted {
            return Err(Refused::expired(revision, self.compacted));
        }
        Ok(self
            .window
            .iter()
            .filter(move |change| change.revision > revision))
    }

    fn write(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        let before = self.objects.get(key).cloned();
        // A write that changes nothing makes no revision.
        if let Some(before) = &before {
            let kept = before.pointer("/metadata/resourceVersion").cloned();
            merge(&mut object, &json!({"metadata": {"resourceVersion": kept}}));
            if **before == object {
                return Arc::clone(before);
            }
        }
        if object.pointer("/metadata/deletionTimestamp").is_some() && !has_finalizers(&object) {
            return self.remove(key, &Arc::new(object));
        }
        let revision = self.advance();
        merge(
            &mut object,
            &json!({"metadata": {"resourceVersion": revision.to_string()}}),
        );
        let object = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&object));
        self.window.push_back(Change {
            revision,
            resource: key.0,
            before,
            after: Some(Arc::clone(&object)),
        });
        object
    }

    fn remove(&mut self, key: &Key, last: &Arc<Value>) -> Arc<Value> {
        self.objects.remove(key);
        let revision = self.advance();
        let mut object = (**last).clone();
        // A deletion is told with the revision of the deletion.
        merge(
            &mut object,
            &json!({"metadata": {"resourceVersion": revision.to_string()}}),
        );
        let object = Arc::new(object);
        self.window.push_back(Change {
            revision,
            resource: key.0,
            before: Some(Arc::clone(&object)),
            after: None,
        });
        object
    }

    fn advance(&mut self) -> u64 {
        self.revision = self.revision.saturating_add(1);
        self.revision
    }
}

fn has_finalizers(object: &Value) -> bool {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|finalizers| !finalizers.is_empty())
}

fn key_of(resource: &'static Resource, object: &Value) -> Key {
    key_in(resource, None, object)
}

fn key_in(resource: &'static Resource, namespace: Option<&str>, object: &Value) -> Key {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").or(namespace).unwrap_or_default();
    let name = text("/metadata/name").unwrap_or_default();
    (resource, namespace.to_owned(), name.to_owned())
}

/// RFC 7386: null removes, objects merge, everything else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests;
