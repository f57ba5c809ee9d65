//! The manifests in deploy/kubernetes: they say what Kubernetes understands, they give the agent what it calls and no
//! more, and it runs within them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::{Agent, cluster, exposed, service};

pub fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn documents(path: &Path) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(&read(path))
        .map(|document| {
            Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(deploy(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} is empty");
    files
}

/// The one document of its kind in a file of deploy/kubernetes.
pub fn one<T: DeserializeOwned>(file: &str) -> T {
    let mut documents = documents(&deploy("kubernetes").join(file));
    assert_eq!(documents.len(), 1, "{file}");
    serde_json::from_value(documents.remove(0)).unwrap()
}

/// Every field of `written` that `understood` lacks or has otherwise: k8s_openapi passes over unknown fields in silence.
fn lost(written: &Value, understood: &Value, at: &str, found: &mut Vec<String>) {
    match (written, understood) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, value) in fields {
                let at = format!("{at}.{key}");
                match understood.get(key) {
                    Some(other) => lost(value, other, &at, found),
                    None => found.push(at),
                }
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (item, other) in items.iter().zip(others) {
                lost(item, other, at, found);
            }
        }
        _ if written == understood => {}
        _ => found.push(format!("{at}: {written} is read as {understood}")),
    }
}

fn round_trip<T: DeserializeOwned + Serialize>(document: &Value) -> Value {
    let typed: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error} in {document:#}"));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn kubernetes_understands_every_field_of_every_manifest() {
    for directory in ["kubernetes", "kubernetes/optional", "examples"] {
        for path in yaml_files(directory) {
            for document in documents(&path) {
                let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
                let understood = match kind {
                    "Namespace" => round_trip::<Namespace>(&document),
                    "ServiceAccount" => round_trip::<ServiceAccount>(&document),
                    "ConfigMap" => round_trip::<ConfigMap>(&document),
                    "Secret" => round_trip::<Secret>(&document),
                    "Service" => round_trip::<Service>(&document),
                    "Deployment" => round_trip::<Deployment>(&document),
                    "PersistentVolumeClaim" => round_trip::<PersistentVolumeClaim>(&document),
                    "ClusterRole" => round_trip::<ClusterRole>(&document),
                    "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(&document),
                    "Kustomization" => continue,
                    other => panic!("{}: unexpected kind {other}", path.display()),
                };
                let mut found = Vec::new();
                lost(&document, &understood, kind, &mut found);
                assert!(found.is_empty(), "{}: {found:#?}", path.display());
            }
        }
    }
}

#[test]
fn the_kustomization_names_every_file() {
    let kustomization: Value = one("kustomization.yaml");
    let named: BTreeSet<String> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let there: BTreeSet<String> = yaml_files("kubernetes")
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "kustomization.yaml" && name != "secret.example.yaml")
        .collect();
    assert_eq!(named, there);
    let text = read(&deploy("kubernetes/kustomization.yaml"));
    for path in yaml_files("kubernetes/optional") {
        let name = format!("# - optional/{}", path.file_name().unwrap().to_string_lossy());
        assert!(text.contains(&name), "{name} is not offered");
    }
}

/// `verbs resource.group` of each rule.
fn grants(rules: &[PolicyRule]) -> BTreeSet<String> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    rules
        .iter()
        .map(|rule| {
            let (groups, resources) = (list(&rule.api_groups), list(&rule.resources));
            assert_eq!((groups.len(), resources.len()), (1, 1), "{rule:?}");
            assert!(
                rule.non_resource_urls.is_none() && rule.resource_names.is_none(),
                "{rule:?}"
            );
            format!("{} {}.{}", rule.verbs.join(","), resources[0], groups[0])
        })
        .collect()
}

#[test]
fn the_roles_grant_what_is_needed_and_no_more() {
    let role: ClusterRole = one("clusterrole.yaml");
    let expected = [
        "create,patch events.events.k8s.io",
        "get,list,watch endpointslices.discovery.k8s.io",
        "get,list,watch services.",
    ];
    assert_eq!(grants(&role.rules.unwrap()), expected.map(str::to_owned).into());
    for (file, expected) in [
        ("optional/clusterrole-nodes.yaml", "get,list,watch nodes."),
        ("optional/clusterrole-status.yaml", "patch services/status."),
    ] {
        let documents = documents(&deploy("kubernetes").join(file));
        let role: ClusterRole = serde_json::from_value(documents[0].clone()).unwrap();
        assert_eq!(
            grants(&role.rules.unwrap()),
            [expected.to_owned()].into(),
            "{file}"
        );
        assert_binding(
            &serde_json::from_value(documents[1].clone()).unwrap(),
            role.metadata.name.as_deref(),
        );
    }
    assert_binding(&one("clusterrolebinding.yaml"), role.metadata.name.as_deref());
}

fn assert_binding(binding: &ClusterRoleBinding, role: Option<&str>) {
    let account: ServiceAccount = one("serviceaccount.yaml");
    assert_eq!(Some(binding.role_ref.name.as_str()), role);
    let subjects = binding.subjects.as_ref().unwrap();
    assert_eq!(subjects.len(), 1);
    assert_eq!(Some(&subjects[0].name), account.metadata.name.as_ref());
    assert_eq!(subjects[0].namespace, account.metadata.namespace);
}

#[test]
fn the_deployment_is_small_and_without_privilege() {
    let deployment: Deployment = one("deployment.yaml");
    let spec = deployment.spec;
    assert_eq!(spec.replicas, Some(1));
    let pod = spec.template.spec.unwrap();
    let account: ServiceAccount = one("serviceaccount.yaml");
    assert_eq!(pod.service_account_name, account.metadata.name);
    assert_eq!(deployment.metadata.namespace, account.metadata.namespace);
    assert_ne!(pod.host_network, Some(true));
    let security = pod.security_context.unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert!(security.run_as_user.is_some_and(|user| user > 0));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert_eq!(pod.containers.len(), 1);
    let container = &pod.containers[0];
    let confined = container.security_context.as_ref().unwrap();
    assert_eq!(confined.read_only_root_filesystem, Some(true));
    assert_eq!(confined.allow_privilege_escalation, Some(false));
    assert_ne!(confined.privileged, Some(true));
    let capabilities = confined.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(["ALL".to_owned()].as_slice()));
    assert!(capabilities.add.is_none());
    let resources = container.resources.as_ref().unwrap();
    let quantities = |map: &Option<std::collections::BTreeMap<String, _>>| {
        let map = map.as_ref().unwrap();
        let text = |key: &str| {
            let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = &map[key];
            quantity.0.clone()
        };
        (text("cpu"), text("memory"))
    };
    assert_eq!(quantities(&resources.requests), ("100m".into(), "64Mi".into()));
    assert_eq!(quantities(&resources.limits), ("200m".into(), "128Mi".into()));
    for probe in [&container.liveness_probe, &container.readiness_probe] {
        assert!(probe.as_ref().unwrap().http_get.is_some());
    }
    let port = &container.ports.as_ref().unwrap()[0];
    assert_eq!((port.container_port, port.name.as_deref()), (8080, Some("http")));
}

#[test]
fn the_deployment_mounts_the_token_that_the_example_makes() {
    let deployment: Deployment = one("deployment.yaml");
    let secret: Secret = one("secret.example.yaml");
    let config: ConfigMap = one("configmap.yaml");
    let pod = deployment.spec.template.spec.unwrap();
    let volume = &pod.volumes.unwrap()[0];
    assert_eq!(volume.secret.as_ref().unwrap().secret_name, secret.metadata.name);
    let container = &pod.containers[0];
    let mount = &container.volume_mounts.as_ref().unwrap()[0];
    assert_eq!(mount.name, volume.name);
    let token_file = container
        .env
        .as_ref()
        .unwrap()
        .iter()
        .find(|env| env.name == "TOKEN_FILE")
        .unwrap();
    let key = secret.string_data.unwrap().keys().next().unwrap().clone();
    assert_eq!(token_file.value, Some(format!("{}/{key}", mount.mount_path)));
    let source = &container.env_from.as_ref().unwrap()[0];
    assert_eq!(
        Some(&source.config_map_ref.as_ref().unwrap().name),
        config.metadata.name.as_ref()
    );
}

#[tokio::test]
async fn the_agent_runs_within_its_role() {
    let api = cluster();
    api.enforce_roles(&read(&deploy("kubernetes/clusterrole.yaml")))
        .unwrap();
    api.apply(&exposed("default/web")).unwrap();
    api.apply(&service(
        "default/bad",
        &[("subdomain", "bad"), ("ports", "80/tpc")],
    ))
    .unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent.until_event("default/bad", "\"tpc\"").await;
    agent
        .until_request("a status", |request| request.subresource.is_some())
        .await;
    for request in agent.api.requests().iter().filter(|request| !request.allowed) {
        let optional = request.resource == "nodes" || request.subresource.as_deref() == Some("status");
        assert!(optional, "the role lacks {request:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn with_the_optional_roles_nothing_is_refused() {
    let api = cluster();
    let mut roles = read(&deploy("kubernetes/clusterrole.yaml"));
    for path in yaml_files("kubernetes/optional") {
        roles.push_str("\n---\n");
        roles.push_str(&read(&path));
    }
    api.enforce_roles(&roles).unwrap();
    api.apply(&exposed("default/web")).unwrap();
    api.apply(&service(
        "default/bad",
        &[("subdomain", "bad"), ("ports", "80/tpc")],
    ))
    .unwrap();
    let mut agent = Agent::start(api).await;
    agent.until_services(&["default/web"]).await;
    agent.until_event("default/bad", "\"tpc\"").await;
    agent
        .until_request("a status", |request| request.subresource.is_some())
        .await;
    agent
        .until_request("a watch of nodes", |request| {
            request.resource == "nodes" && request.verb == "watch"
        })
        .await;
    let refused: Vec<_> = agent
        .api
        .requests()
        .into_iter()
        .filter(|request| !request.allowed)
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    agent.stop().await;
}
