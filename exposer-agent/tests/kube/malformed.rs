//! A malformed annotation: its owner gets an Event with the offending text, once; other Services are not affected.

use serde_json::Value;

use crate::support::{Agent, cluster, exposed, service};

#[tokio::test]
async fn the_owner_is_told_and_nobody_else_suffers() {
    let api = cluster();
    api.apply(&exposed("default/good")).unwrap();
    api.apply(&service(
        "default/bad",
        &[("subdomain", "bad"), ("ports", "80/tpc")],
    ))
    .unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/good"]).await;
    let event = agent.until_event("default/bad", "\"tpc\"").await;
    assert_eq!(event.get("type").and_then(Value::as_str), Some("Warning"));
    assert_eq!(
        event.get("reason").and_then(Value::as_str),
        Some("InvalidAnnotation")
    );
    assert_eq!(
        event.pointer("/regarding/kind").and_then(Value::as_str),
        Some("Service")
    );
    assert!(event.pointer("/regarding/uid").is_some());
    assert_eq!(
        agent.logs.count("the Service is not exposed"),
        1,
        "{}",
        agent.logs.text()
    );

    // A change that mends nothing is nothing to say again; another mistake is.
    let mut touched = service("default/bad", &[("subdomain", "bad"), ("ports", "80/tpc")]);
    touched["metadata"]["labels"] = serde_json::json!({ "touched": "yes" });
    agent.api.apply(&touched).unwrap();
    agent
        .api
        .apply(&service(
            "default/bad",
            &[("subdomain", "Bad_Name"), ("ports", "80/tcp")],
        ))
        .unwrap();
    agent.until_event("default/bad", "Bad_Name").await;
    assert_eq!(
        agent.notes("default/bad").len(),
        2,
        "{:#?}",
        agent.notes("default/bad")
    );

    agent.api.apply(&exposed("default/bad")).unwrap();
    agent.until_services(&["default/bad", "default/good"]).await;
    assert!(agent.notes("default/good").is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn one_annotation_of_the_two_is_told_as_such() {
    let api = cluster();
    api.apply(&service("default/half", &[("ports", "80/tcp")]))
        .unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&[]).await;
    agent
        .until_event("default/half", "expose.neverup.at/subdomain is missing")
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_turns_bad_is_withdrawn_as_a_whole() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    let worse = service(
        "default/web",
        &[("subdomain", "web"), ("ports", "80/tcp, 99999/tcp")],
    );
    agent.api.apply(&worse).unwrap();
    agent.until_services(&[]).await;
    agent.until_event("default/web", "99999").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_misspelt_key_is_reported_and_the_service_exposed_all_the_same() {
    let api = cluster();
    let misspelt = service(
        "default/web",
        &[("subdomain", "web"), ("ports", "80/tcp"), ("taget", "auto")],
    );
    api.apply(&misspelt).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent.until_event("default/web", "expose.neverup.at/taget").await;
    agent.stop().await;
}

#[tokio::test]
async fn events_that_are_not_allowed_stop_nothing() {
    let api = cluster();
    api.deny("events", true);
    api.apply(&service("default/bad", &[("subdomain", "bad"), ("ports", "x")]))
        .unwrap();
    api.apply(&exposed("default/good")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/good"]).await;
    agent
        .until_true("the complaint", || {
            agent.logs.count("the agent may not write Events") > 0
        })
        .await;
    agent.api.apply(&exposed("default/later")).unwrap();
    agent.until_services(&["default/good", "default/later"]).await;
    agent.stop().await;
}
