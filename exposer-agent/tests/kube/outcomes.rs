//! What the edge makes of a Service comes back to its owner: Events, and the status condition where that is allowed.

use exposer_agent::desired::Outcomes;
use exposer_common::model::{Protocol, ServiceId};
use exposer_common::proto::message::{Path, PortOutcome, Refusal, RefusalCode, ServiceOutcome};
use serde_json::Value;

use crate::support::{Agent, cluster, exposed};

fn port(public_port: u16, refused: Option<Refusal>) -> PortOutcome {
    PortOutcome {
        requested: 80,
        protocol: Protocol::Tcp,
        public_port: Some(public_port),
        path: Some(Path::Kernel),
        refused,
    }
}

fn outcome(name: &str, refused: Option<Refusal>, ports: Vec<PortOutcome>) -> Outcomes {
    let id = ServiceId {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    };
    Outcomes {
        edge: "10.0.0.1:9090".to_owned(),
        outcomes: vec![ServiceOutcome { id, refused, ports }],
    }
}

fn refusal(code: RefusalCode, text: &str) -> Option<Refusal> {
    Some(Refusal {
        code,
        text: text.to_owned(),
    })
}

/// Status and message of the condition on a Service.
fn condition(agent: &Agent, name: &str) -> Option<(String, String)> {
    let services = agent.api.objects("Service").unwrap();
    let service = services
        .iter()
        .find(|service| service.pointer("/metadata/name").and_then(Value::as_str) == Some(name))?;
    let condition = service.pointer("/status/conditions/0")?;
    let text = |key: &str| {
        condition
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(text("type"), "expose.neverup.at/Exposed");
    Some((text("status"), text("message")))
}

#[tokio::test]
async fn a_moved_port_is_told_with_the_public_one_and_once() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    let moved = || {
        let why = refusal(RefusalCode::PortMoved, "default/other has it");
        outcome("web", None, vec![port(30007, why)])
    };
    agent.outcomes.send(moved()).await.unwrap();
    let event = agent
        .until_event("default/web", "80/tcp answers on public port 30007")
        .await;
    assert_eq!(event.get("reason").and_then(Value::as_str), Some("PortMoved"));
    agent
        .until_event("default/web", "web.neverup.at answers on 30007/tcp")
        .await;
    agent
        .until_true("the condition", || {
            condition(&agent, "web") == Some(("True".into(), "web.neverup.at answers on 30007/tcp".into()))
        })
        .await;
    // The edge repeats itself; then the port it asked for becomes free.
    agent.outcomes.send(moved()).await.unwrap();
    agent
        .outcomes
        .send(outcome("web", None, vec![port(80, None)]))
        .await
        .unwrap();
    agent
        .until_event("default/web", "web.neverup.at answers on 80/tcp")
        .await;
    assert_eq!(
        agent.notes("default/web").len(),
        3,
        "{:#?}",
        agent.notes("default/web")
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_service_is_told_why() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    let why = refusal(
        RefusalCode::SubdomainTaken,
        "the subdomain \"web\" belongs to a/b",
    );
    agent
        .outcomes
        .send(outcome("web", why, Vec::new()))
        .await
        .unwrap();
    let event = agent.until_event("default/web", "belongs to a/b").await;
    assert_eq!(
        event.get("reason").and_then(Value::as_str),
        Some("SubdomainTaken")
    );
    assert_eq!(event.get("type").and_then(Value::as_str), Some("Warning"));
    agent
        .until_true("the condition", || {
            condition(&agent, "web")
                .is_some_and(|(status, message)| status == "False" && message.contains("a/b"))
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn without_annotations_the_condition_goes_away() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent
        .outcomes
        .send(outcome("web", None, vec![port(80, None)]))
        .await
        .unwrap();
    agent
        .until_true("the condition", || condition(&agent, "web").is_some())
        .await;
    // The client that removes the annotations leaves the status as it is.
    let services = agent.api.objects("Service").unwrap();
    let mut plain = services.first().unwrap().clone();
    plain["metadata"]["annotations"] = serde_json::json!({});
    agent.api.apply(&plain).unwrap();
    agent.until_services(&[]).await;
    agent
        .until_true("no condition", || condition(&agent, "web").is_none())
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_late_word_on_a_deleted_service_is_nobodys() {
    let api = cluster();
    let mut agent = Agent::start(api).await;
    agent.until_services(&[]).await;
    agent
        .outcomes
        .send(outcome("ghost", None, vec![port(80, None)]))
        .await
        .unwrap();
    agent.api.apply(&exposed("default/web")).unwrap();
    agent.until_services(&["default/web"]).await;
    agent
        .outcomes
        .send(outcome("web", None, vec![port(80, None)]))
        .await
        .unwrap();
    agent
        .until_event("default/web", "web.neverup.at answers on 80/tcp")
        .await;
    assert!(agent.notes("default/ghost").is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_condition_from_before_a_restart_goes_away() {
    let api = cluster();
    let mut orphan = crate::support::service("default/web", &[]);
    orphan["status"] = serde_json::json!({ "conditions": [{
        "type": "expose.neverup.at/Exposed", "status": "True", "reason": "Exposed", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }] });
    api.apply(&orphan).unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&[]).await;
    agent
        .until_true("no condition", || condition(&agent, "web").is_none())
        .await;
    agent.stop().await;
}
