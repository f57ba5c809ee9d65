//! The embedded API server, spoken to by the real client: what these calls see is what the agent sees.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use exposer_testkit::kube_api::KubeApi;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};

const PATIENCE: Duration = Duration::from_secs(30);

async fn client(api: &KubeApi) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&api.kubeconfig_yaml()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn service(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n"
    )
}

async fn next<T: std::fmt::Debug>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    tokio::time::timeout(PATIENCE, stream.next())
        .await
        .expect("the watch says nothing")
        .expect("the watch ended")
}

#[tokio::test]
async fn lists_get_and_pages() {
    let api = KubeApi::start_on_loopback().unwrap();
    for (namespace, name) in [("a", "one"), ("a", "two"), ("b", "three")] {
        api.apply_yaml(&service(namespace, name)).unwrap();
    }
    let client = client(&api).await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let all: Api<Service> = Api::all(client.clone());
    let first = all.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(
        (first.items.len(), first.metadata.remaining_item_count),
        (2, Some(1))
    );
    let token = first.metadata.continue_.unwrap();
    let rest = all
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(rest.items.first().unwrap().name_any(), "three");
    assert!(rest.metadata.continue_.is_none());
    let in_a: Api<Service> = Api::namespaced(client.clone(), "a");
    assert_eq!(in_a.list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert_eq!(
        in_a.list(&ListParams::default().labels("app=two"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let one = in_a.get("one").await.unwrap();
    assert!(one.spec.unwrap().cluster_ip.unwrap().starts_with("10.96."));
    assert!(one.metadata.creation_timestamp.is_some());
    assert!(in_a.get_opt("none").await.unwrap().is_none());
    let nodes: Api<Node> = Api::all(client.clone());
    assert!(nodes.list(&ListParams::default()).await.unwrap().items.is_empty());
    let slices: Api<EndpointSlice> = Api::all(client);
    assert!(
        slices
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_watch_tells_changes_bookmarks_and_its_end() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.set_bookmark_interval(Duration::from_millis(50));
    api.apply_yaml(&service("a", "old")).unwrap();
    let services: Api<Service> = Api::namespaced(client(&api).await, "a");
    let at = services
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let parameters = WatchParams::default().timeout(2);
    let mut watch = services.watch(&parameters, &at).await.unwrap().boxed();
    api.apply_yaml(&service("b", "elsewhere")).unwrap();
    api.apply_yaml(&service("a", "fresh")).unwrap();
    api.delete("a", "old").unwrap();
    let mut told = Vec::new();
    let mut bookmark = None;
    while let Some(event) = tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("the watch never ends")
    {
        match event.unwrap() {
            WatchEvent::Added(object) => told.push(format!("added {}", object.name_any())),
            WatchEvent::Modified(object) => told.push(format!("modified {}", object.name_any())),
            WatchEvent::Deleted(object) => told.push(format!("deleted {}", object.name_any())),
            WatchEvent::Bookmark(mark) => bookmark = Some(mark.metadata.resource_version),
            WatchEvent::Error(status) => panic!("{status:?}"),
        }
    }
    assert_eq!(told, ["added fresh", "deleted old"]);
    assert_eq!(
        bookmark.as_deref(),
        Some("4"),
        "the last bookmark is at the newest revision"
    );
}

#[tokio::test]
async fn a_watch_from_before_the_compaction_is_expired() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.apply_yaml(&service("a", "one")).unwrap();
    api.apply_yaml(&service("a", "two")).unwrap();
    api.compact();
    let services: Api<Service> = Api::all(client(&api).await);
    let mut watch = services
        .watch(&WatchParams::default(), "1")
        .await
        .unwrap()
        .boxed();
    match next(&mut watch).await.unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_streaming_list_marks_the_end_of_what_was_there() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.apply_yaml(&service("a", "one")).unwrap();
    let services: Api<Service> = Api::all(client(&api).await);
    let parameters = WatchParams::default().initial_events();
    let mut watch = services.watch(&parameters, "0").await.unwrap().boxed();
    assert!(
        matches!(next(&mut watch).await.unwrap(), WatchEvent::Added(object) if object.name_any() == "one")
    );
    match next(&mut watch).await.unwrap() {
        WatchEvent::Bookmark(mark) => assert!(
            mark.metadata
                .annotations
                .contains_key("k8s.io/initial-events-end")
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_status_objects() {
    let api = KubeApi::start_on_loopback().unwrap();
    let nodes: Api<Node> = Api::all(client(&api).await);
    api.deny("nodes", true);
    match nodes.list(&ListParams::default()).await.unwrap_err() {
        kube::Error::Api(status) => assert!(
            status.is_forbidden() && status.message.contains("nodes"),
            "{status:?}"
        ),
        other => panic!("{other:?}"),
    }
    api.deny("nodes", false);
    nodes.list(&ListParams::default()).await.unwrap();
    api.reject_credentials(true);
    match nodes.list(&ListParams::default()).await.unwrap_err() {
        kube::Error::Api(status) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn roles_are_enforced_as_rbac_does() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.enforce_roles(
        "kind: ClusterRole\nrules:\n- {apiGroups: [''], resources: [services], verbs: [list]}\n---\n\
         kind: Role\nmetadata: {namespace: a}\nrules:\n- {apiGroups: [''], resources: [pods], verbs: ['*']}\n",
    )
    .unwrap();
    let client = client(&api).await;
    let services: Api<Service> = Api::all(client.clone());
    services.list(&ListParams::default()).await.unwrap();
    assert!(services.watch(&WatchParams::default(), "0").await.is_err());
    let pods = |namespace| Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), namespace);
    pods("a").list(&ListParams::default()).await.unwrap();
    assert!(pods("b").list(&ListParams::default()).await.is_err());
    assert!(
        api.requests()
            .iter()
            .any(|request| request.verb == "watch" && !request.allowed)
    );
}

#[tokio::test]
async fn a_stopped_server_refuses_and_comes_back_with_its_data() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.apply_yaml(&service("a", "one")).unwrap();
    let services: Api<Service> = Api::all(client(&api).await);
    services.list(&ListParams::default()).await.unwrap();
    api.stop().unwrap();
    assert!(!matches!(
        services.list(&ListParams::default()).await.unwrap_err(),
        kube::Error::Api(_)
    ));
    api.restart().unwrap();
    assert_eq!(
        services.list(&ListParams::default()).await.unwrap().items.len(),
        1
    );
    api.lose_data();
    assert!(
        services
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn events_are_seen_as_kubectl_describe_asks_for_them() {
    let api = KubeApi::start_on_loopback().unwrap();
    let stored = api.apply(&serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "a" },
        "spec": { "ports": [{ "port": 80 }] },
    }));
    let uid = stored
        .unwrap()
        .pointer("/metadata/uid")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    let event: k8s_openapi::api::events::v1::Event = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "web.1" }, "note": "told", "reason": "Why", "type": "Warning", "eventTime": null,
        "regarding": { "kind": "Service", "namespace": "a", "name": "web", "uid": uid },
    }))
    .unwrap();
    let client = client(&api).await;
    let events = Api::<k8s_openapi::api::events::v1::Event>::namespaced(client.clone(), "a");
    events
        .create(&kube::api::PostParams::default(), &event)
        .await
        .unwrap();
    let described = Api::<k8s_openapi::api::core::v1::Event>::namespaced(client, "a");
    let about = |uid: &str| {
        let fields = format!("involvedObject.kind=Service,involvedObject.name=web,involvedObject.uid={uid}");
        ListParams::default().fields(&fields)
    };
    let seen = described.list(&about(&uid)).await.unwrap().items;
    assert_eq!(seen.first().unwrap().message.as_deref(), Some("told"));
    assert!(described.list(&about("another")).await.unwrap().items.is_empty());
}
