//! 401 and 403: each is explained with what to do, retried, and deletes nothing.

use exposer_agent::kube::{ConnectError, connect};

use crate::support::{Agent, cluster, exposed};

#[tokio::test]
async fn missing_rights_are_explained_and_waited_for() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    api.deny("services", true);
    let mut agent = Agent::start(api).await;
    agent
        .until_true("the explanation", || {
            agent.logs.count("ClusterRole exposer-agent") > 0
        })
        .await;
    assert_eq!(agent.desired(), None);
    agent.api.deny("services", false);
    agent.until_services(&["default/web"]).await;
    agent
        .until_true("the recovery in the log", || {
            agent.logs.count("the watch works again") > 0
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn refused_credentials_are_explained_and_delete_nothing() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    let mut agent = Agent::start(api).await;
    let before = agent.until_services(&["default/web"]).await;
    agent.api.reject_credentials(true);
    agent.api.drop_watches();
    agent
        .until_true("the explanation", || {
            agent
                .logs
                .count("refuses the agent's credentials (401 on services")
                > 0
        })
        .await;
    assert_eq!(agent.desired(), Some(before));
    agent.api.reject_credentials(false);
    agent.api.apply(&exposed("default/more")).unwrap();
    agent.until_services(&["default/more", "default/web"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_unusable_kubeconfig_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "clusters: {").unwrap();
    for path in [&missing, &garbage] {
        match connect(Some(path)).await {
            Err(error @ ConnectError::Kubeconfig { .. }) => {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{} is no kubeconfig", path.display()),
        }
    }
}
