//! The API server goes away and comes back, with its data and without: what was known stays published meanwhile.

use crate::support::{Agent, cluster, exposed};

#[tokio::test]
async fn the_last_state_outlives_an_outage() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    let before = agent.until_services(&["default/web"]).await;
    agent.api.stop().unwrap();
    agent
        .until_true("the outage in the log", || {
            agent.logs.count("the watch of services in all namespaces failed") > 0
        })
        .await;
    assert_eq!(agent.desired(), Some(before), "an outage deletes nothing");
    agent.api.restart().unwrap();
    agent.api.apply(&exposed("default/after")).unwrap();
    agent.until_services(&["default/after", "default/web"]).await;
    assert_eq!(
        agent.logs.count("the watch of services in all namespaces failed"),
        1,
        "{}",
        agent.logs.text()
    );
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_starts_before_the_api_server_waits_for_it() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    api.stop().unwrap();
    let mut agent = Agent::start(api).await;
    agent
        .until_true("the outage in the log", || {
            agent.logs.count("Check that the API server's address") > 0
        })
        .await;
    assert_eq!(
        agent.desired(),
        None,
        "what is not known is not published as empty"
    );
    agent.api.restart().unwrap();
    agent.until_services(&["default/web"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_cluster_that_lost_its_data_is_believed() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent.api.stop().unwrap();
    agent.api.lose_data();
    agent.api.apply(&exposed("default/new")).unwrap();
    agent.api.restart().unwrap();
    agent.until_services(&["default/new"]).await;
    agent.stop().await;
}
