//! The API server's history is compacted while the agent can't watch: it lists again, and a deletion that nobody told
//! it about is noticed.

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
