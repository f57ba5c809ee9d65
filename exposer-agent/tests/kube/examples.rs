//! The examples in deploy/examples, applied as they are: the agent makes of them what their comments promise.

use crate::manifests::{deploy, read};
use crate::support::{Agent, cluster, record};

#[tokio::test]
async fn the_examples_are_exposed_as_they_say() {
    let api = cluster();
    for example in ["nginx-test.yaml", "minecraft.yaml"] {
        let objects = api.apply_yaml(&read(&deploy("examples").join(example))).unwrap();
        assert!(objects >= 2, "{example}: a Deployment and its Service");
    }
    let mut agent = Agent::start(api).await;
    let desired = agent
        .until_services(&["default/minecraft", "default/nginx-test"])
        .await;

    let nginx = record(&desired, "default/nginx-test");
    assert_eq!((nginx.subdomain.as_str(), nginx.ports.len()), ("nginx-test", 1));
    let port = nginx.ports.first().unwrap();
    assert_eq!((port.public_port, port.tcp.unwrap().service_port), (80, 80));
    assert!(port.udp.is_none());

    let minecraft = record(&desired, "default/minecraft");
    assert_eq!(
        (minecraft.subdomain.as_str(), minecraft.ports.len()),
        ("minecraft", 1)
    );
    let port = minecraft.ports.first().unwrap();
    assert_eq!(port.public_port, 25565);
    assert_eq!(port.tcp.unwrap().service_port, 25565);
    assert_eq!(port.udp.unwrap().service_port, 25565);

    for service in ["default/minecraft", "default/nginx-test"] {
        assert!(agent.notes(service).is_empty(), "{:?}", agent.notes(service));
    }
    agent.stop().await;
}
