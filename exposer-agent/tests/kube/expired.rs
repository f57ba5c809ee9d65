//! The API server's history is compacted while the agent can't watch: it lists again, and a deletion that nobody told
//! it about is noticed.

use std::time::Duration;

use crate::support::{Agent, cluster, exposed};

#[tokio::test]
async fn a_deletion_that_was_compacted_away_is_noticed() {
    let api = cluster();
    api.apply(&exposed("default/stays")).unwrap();
    api.apply(&exposed("default/goes")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/goes", "default/stays"]).await;
    agent.api.stop().unwrap();
    agent.api.delete("default", "goes").unwrap();
    agent.api.apply(&exposed("default/comes")).unwrap();
    agent.api.compact();
    agent.api.restart().unwrap();
    agent.until_services(&["default/comes", "default/stays"]).await;
    assert!(
        agent.lists("services") >= 2,
        "after 410 everything is listed again"
    );
    assert!(
        agent.logs.text().contains("too old resource version"),
        "{}",
        agent.logs.text()
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_cut_watch_is_resumed_where_it_stood() {
    let api = cluster();
    api.apply(&exposed("default/one")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/one"]).await;
    agent
        .until_request("a watch", |request| {
            request.verb == "watch" && request.resource == "services"
        })
        .await;
    agent.api.drop_watches();
    agent.api.apply(&exposed("default/two")).unwrap();
    agent.until_services(&["default/one", "default/two"]).await;
    agent.api.delete("default", "one").unwrap();
    agent.until_services(&["default/two"]).await;
    assert_eq!(
        agent.lists("services"),
        1,
        "nothing was lost, so nothing is listed again"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_refused_as_expired_begins_anew() {
    let api = cluster();
    api.refuse_expired_watches(true);
    api.apply(&exposed("default/stays")).unwrap();
    api.apply(&exposed("default/goes")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/goes", "default/stays"]).await;
    agent.api.stop().unwrap();
    agent.api.delete("default", "goes").unwrap();
    agent.api.compact();
    agent.api.restart().unwrap();
    agent.until_services(&["default/stays"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_watch_whose_time_is_up_is_resumed_without_a_list() {
    let api = cluster();
    api.set_watch_limit(Duration::from_millis(100));
    api.apply(&exposed("default/one")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/one"]).await;
    let watches = |agent: &Agent| {
        let requests = agent.api.requests();
        let of_services = |request: &&exposer_testkit::kube_api::Request| {
            request.verb == "watch" && request.resource == "services"
        };
        requests.iter().filter(of_services).count()
    };
    // A namespace makes a revision that no watch of Services shows: only bookmarks carry it past the compaction.
    agent
        .api
        .apply_yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
        .unwrap();
    let before = watches(&agent);
    agent
        .until_true("two more watches", || watches(&agent) >= before + 2)
        .await;
    agent.api.compact();
    agent.api.apply(&exposed("default/two")).unwrap();
    agent.until_services(&["default/one", "default/two"]).await;
    assert_eq!(agent.lists("services"), 1, "{}", agent.logs.text());
    agent.stop().await;
}
