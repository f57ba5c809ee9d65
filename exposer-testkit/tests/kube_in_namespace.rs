//! The embedded API server serves inside a network namespace from a listener that was bound there, and comes back there.
//! Needs root.

use std::net::TcpListener;

use exposer_testkit::kube_api::KubeApi;
use exposer_testkit::netns::Netns;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The number of Services that a client inside `netns` sees.
fn services(netns: &Netns, kubeconfig: &str) -> anyhow::Result<usize> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    netns.run_async(|| async move {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let services: Api<Service> = Api::all(Client::try_from(config)?);
        Ok(services.list(&ListParams::default()).await?.items.len())
    })
}

#[test]
fn a_listener_from_a_namespace_serves_that_namespace() {
    let netns = Netns::new("kubeapi", "home").unwrap();
    netns.ip("addr add 192.0.2.10/32 dev lo").unwrap();
    netns.ip("link set lo up").unwrap();
    let bind = || netns.run(|| Ok(TcpListener::bind("192.0.2.10:6443")?)).unwrap();
    let api = KubeApi::start(bind()).unwrap();
    api.apply_yaml("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n")
        .unwrap();
    assert!(api.kubeconfig_yaml().contains("http://192.0.2.10:6443"));
    assert_eq!(services(&netns, &api.kubeconfig_yaml()).unwrap(), 1);
    api.stop().unwrap();
    assert!(
        services(&netns, &api.kubeconfig_yaml()).is_err(),
        "a stopped server answers"
    );
    api.resume_on(bind()).unwrap();
    assert_eq!(services(&netns, &api.kubeconfig_yaml()).unwrap(), 1);
}
