//! Node addresses: they follow the ready nodes where the agent may read them, and are done without where it may not.

use serde_json::{Value, json};

use crate::support::{Agent, cluster, exposed, record};

fn node(name: &str, address: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    })
}

async fn until_addresses(agent: &mut Agent, expected: &[&str]) {
    let what = format!("node addresses {expected:?}");
    agent
        .until(&what, |desired| {
            let addresses = &record(desired, "default/web").node_addresses;
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>() == expected
        })
        .await;
}

#[tokio::test]
async fn addresses_follow_the_ready_nodes() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    api.apply(&node("one", "192.168.1.11", true)).unwrap();
    let mut agent = Agent::start(api).await;
    until_addresses(&mut agent, &["192.168.1.11"]).await;
    agent.api.apply(&node("two", "192.168.1.10", true)).unwrap();
    until_addresses(&mut agent, &["192.168.1.10", "192.168.1.11"]).await;
    agent.api.apply(&node("one", "192.168.1.11", false)).unwrap();
    until_addresses(&mut agent, &["192.168.1.10"]).await;
    agent.api.delete_object("Node", "", "two").unwrap();
    until_addresses(&mut agent, &[]).await;
    agent.stop().await;
}

#[tokio::test]
async fn forbidden_nodes_only_degrade() {
    let api = cluster();
    api.deny("nodes", true);
    api.apply(&node("one", "192.168.1.11", true)).unwrap();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    let desired = agent.until_services(&["default/web"]).await;
    assert!(record(&desired, "default/web").node_addresses.is_empty());
    agent.api.apply(&exposed("default/more")).unwrap();
    agent.until_services(&["default/more", "default/web"]).await;
    assert_eq!(
        agent.logs.count("the agent may not read nodes"),
        1,
        "{}",
        agent.logs.text()
    );
    agent.stop().await;
}
