//! A Service is added, changed and deleted while the agent watches: each is seen without a new list.

use crate::support::{Agent, cluster, exposed, record, service};

#[tokio::test]
async fn add_update_delete_are_seen_live() {
    let api = cluster();
    api.apply(&exposed("default/first")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/first"]).await;
    agent.api.apply(&exposed("games/second")).unwrap();
    agent.until_services(&["default/first", "games/second"]).await;

    let moved = service(
        "games/second",
        &[("subdomain", "second"), ("ports", "8080:web/tcp")],
    );
    agent.api.apply(&moved).unwrap();
    let desired = agent
        .until("port 8080", |desired| {
            record(desired, "games/second")
                .ports
                .iter()
                .any(|port| port.public_port == 8080)
        })
        .await;
    let port = record(&desired, "games/second").ports.first().unwrap();
    assert_eq!(port.tcp.unwrap().service_port, 80);
    assert!(record(&desired, "games/second").cluster_ip.is_some());

    agent.api.apply(&service("default/first", &[])).unwrap();
    agent.until_services(&["games/second"]).await;
    agent.api.delete("games", "second").unwrap();
    agent.until_services(&[]).await;
    assert_eq!(agent.lists("services"), 1, "a live change needs no new list");
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_is_made_anew_is_another_one() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    let before = agent.until_services(&["default/web"]).await;
    let uid = record(&before, "default/web").uid.clone();
    agent.api.delete("default", "web").unwrap();
    agent.api.apply(&exposed("default/web")).unwrap();
    agent
        .until("another uid", |desired| {
            desired.services.values().any(|record| record.uid != uid)
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_lingers_in_deletion_is_gone() {
    let api = cluster();
    let mut held = exposed("default/web");
    held["metadata"]["finalizers"] = serde_json::json!(["service.kubernetes.io/load-balancer-cleanup"]);
    api.apply(&held).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent.api.delete("default", "web").unwrap();
    agent.until_services(&[]).await;
    agent.stop().await;
}

#[tokio::test]
async fn many_services_come_in_pages() {
    let api = cluster();
    // More than one page of kube's watcher (500).
    for number in 0..1_203 {
        api.apply(&exposed(&format!("default/s{number}"))).unwrap();
    }
    let mut agent = Agent::start(api).await;
    let desired = agent.until("any state", |_| true).await;
    assert_eq!(
        desired.services.len(),
        1_203,
        "the first state that is published is whole"
    );
    assert_eq!(agent.lists("services"), 3);
    agent.stop().await;
}
