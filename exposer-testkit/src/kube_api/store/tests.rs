//! Revisions, paging, compaction and finalizers of the store.

use super::*;

fn services() -> &'static Resource {
    Resource::of_manifest("v1", "Service").unwrap()
}

fn service(name: &str, port: u16) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": port}]}})
}

#[test]
fn what_the_server_gave_stays_with_the_object() {
    let mut store = Store::default();
    let first = store.apply(services(), service("web", 80)).unwrap();
    assert_eq!(first.pointer("/metadata/namespace"), Some(&json!("default")));
    assert_eq!(first.pointer("/spec/clusterIP"), Some(&json!("10.96.0.101")));
    assert_eq!(first.pointer("/spec/ports/0/protocol"), Some(&json!("TCP")));
    let second = store.apply(services(), service("web", 81)).unwrap();
    for kept in ["/metadata/uid", "/metadata/creationTimestamp", "/spec/clusterIP"] {
        assert_eq!(first.pointer(kept), second.pointer(kept), "{kept}");
    }
    assert_eq!(store.revision(), 2);
    store.apply(services(), service("web", 81)).unwrap();
    assert_eq!(
        store.revision(),
        2,
        "a write that changes nothing makes no revision"
    );
}

#[test]
fn node_ports_are_given_where_the_type_has_them() {
    let mut store = Store::default();
    let mut wish = service("web", 80);
    merge(&mut wish, &json!({"spec": {"type": "NodePort"}}));
    let given = store.apply(services(), wish).unwrap();
    let port = given
        .pointer("/spec/ports/0/nodePort")
        .and_then(Value::as_u64)
        .unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
}

#[test]
fn pages_show_the_moment_at_which_the_list_began() {
    let mut store = Store::default();
    for name in ["a", "b", "c"] {
        store.apply(services(), service(name, 80)).unwrap();
    }
    let first = store.list(services(), &Selector::default(), 2);
    let (token, left) = first.next.unwrap();
    assert_eq!((first.items.len(), left, first.revision), (2, 1, 3));
    store.delete(services(), "default", "c").unwrap();
    let second = store.next_page(token, 2).unwrap();
    assert_eq!((second.items.len(), second.revision), (1, 3));
    assert!(second.next.is_none());
    let (token, _) = store.list(services(), &Selector::default(), 1).next.unwrap();
    store.compact();
    assert_eq!(store.next_page(token, 1).unwrap_err().code, 410);
}

#[test]
fn a_compacted_window_is_told_apart_from_an_empty_one() {
    let mut store = Store::default();
    store.apply(services(), service("a", 80)).unwrap();
    store.apply(services(), service("b", 80)).unwrap();
    assert_eq!(store.since(1).unwrap().count(), 1);
    store.compact();
    assert_eq!(store.since(2).unwrap().count(), 0);
    assert_eq!(store.since(1).map(Iterator::count).unwrap_err().reason, "Expired");
}

#[test]
fn finalizers_hold_a_deletion_back() {
    let mut store = Store::default();
    let mut held = service("a", 80);
    merge(&mut held, &json!({"metadata": {"finalizers": ["example.org/x"]}}));
    store.apply(services(), held).unwrap();
    store.delete(services(), "default", "a").unwrap();
    let marked = store.get(services(), "default", "a").unwrap();
    assert!(marked.pointer("/metadata/deletionTimestamp").is_some());
    let release = json!({"metadata": {"finalizers": null}});
    store.patch(services(), Some("default"), "a", &release).unwrap();
    assert_eq!(store.get(services(), "default", "a").unwrap_err().code, 404);
    let last = store.since(0).unwrap().last().unwrap();
    assert!(last.after.is_none() && last.before.is_some());
}
