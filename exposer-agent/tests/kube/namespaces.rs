//! Chosen namespaces only: nothing else is read, or even asked for.

use crate::support::{Agent, cluster, exposed};

#[tokio::test]
async fn only_the_chosen_namespaces_are_read() {
    let api = cluster();
    for name in ["a/one", "b/two", "c/three"] {
        api.apply(&exposed(name)).unwrap();
    }
    let mut agent = Agent::start_in(api, &["a", "b"]).await;
    agent.until_services(&["a/one", "b/two"]).await;
    agent.api.apply(&exposed("c/four")).unwrap();
    agent.api.apply(&exposed("b/five")).unwrap();
    agent.until_services(&["a/one", "b/five", "b/two"]).await;
    agent.api.delete("a", "one").unwrap();
    agent.until_services(&["b/five", "b/two"]).await;
    for request in agent.api.requests() {
        if request.resource == "services" {
            let namespace = request.namespace.as_deref();
            assert!(namespace == Some("a") || namespace == Some("b"), "{request:?}");
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn roles_in_the_chosen_namespaces_are_enough() {
    let api = cluster();
    api.apply(&exposed("a/one")).unwrap();
    api.enforce_roles(
        "kind: Role\nmetadata: {namespace: a}\nrules:\n\
         - {apiGroups: [''], resources: [services], verbs: [get, list, watch]}\n\
         - {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}\n",
    )
    .unwrap();
    let mut agent = Agent::start_in(api, &["a"]).await;
    agent.until_services(&["a/one"]).await;
    agent.stop().await;
}
