//! The real binary with the environment that deploy/kubernetes gives it: the settings are understood, the probes answer,
//! a malformed annotation is told although no edge can be reached, and SIGTERM ends it with status 0.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use clap::CommandFactory;
use exposer_agent::args::Cli;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::manifests::one;
use crate::support::{PATIENCE, cluster, exposed, note, service};

/// The environment of the container, as the kubelet would make it.
fn environment() -> BTreeMap<String, String> {
    let config: ConfigMap = one("configmap.yaml");
    let deployment: Deployment = one("deployment.yaml");
    let container = deployment.spec.template.spec.unwrap().containers.remove(0);
    assert_eq!(container.args, Some(vec!["run".to_owned()]));
    let own = container.env.into_iter().flatten();
    let own = own.map(|env| (env.name, env.value.unwrap()));
    config.data.unwrap().into_iter().chain(own).collect()
}

#[test]
fn every_variable_of_the_manifests_is_a_setting() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let known: Vec<&str> = run
        .get_arguments()
        .filter_map(|flag| flag.get_env()?.to_str())
        .collect();
    for name in environment().keys() {
        assert!(
            known.contains(&name.as_str()),
            "{name} is no setting; there are {known:?}"
        );
    }
}

/// Status code and body of a GET.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Waits until the agent answers `path` with `wanted`; it must not end before.
async fn until_answer(child: &mut Child, port: u16, path: &str, wanted: impl Fn(u16, &str) -> bool) {
    let mut last = None;
    let polling = async {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the agent ended with {status}");
            }
            last = get(port, path).await;
            if last.as_ref().is_some_and(|(code, body)| wanted(*code, body)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, polling).await.is_err() {
        panic!("{path} answers {last:?}");
    }
}

#[tokio::test]
async fn the_binary_runs_with_the_environment_of_the_manifests() {
    let api = cluster();
    api.apply(&exposed("default/web")).unwrap();
    api.apply(&service(
        "default/bad",
        &[("subdomain", "bad"), ("ports", "80/tpc")],
    ))
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, token) = (
        directory.path().join("kubeconfig"),
        directory.path().join("token"),
    );
    std::fs::write(&kubeconfig, api.kubeconfig_yaml()).unwrap();
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Two ports that are free: one for the probes, one where no edge is.
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let (probes, nobody) = (free(), free());
    let mut child = Command::new(env!("CARGO_BIN_EXE_exposer-agent"))
        .arg("run")
        .env_clear()
        .envs(environment())
        .env("KUBECONFIG", &kubeconfig)
        .env("TOKEN_FILE", &token)
        .env("SERVER_ADDR", format!("127.0.0.1:{nobody}"))
        .env("METRICS_ADDR", format!("127.0.0.1:{probes}"))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until_answer(&mut child, probes, "/healthz", |code, _| code == 200).await;
    // Alive, but of no use yet: the cluster is read, the edge is missing.
    until_answer(&mut child, probes, "/readyz", |code, body| {
        code == 503 && body.contains("1 Services to expose") && body.contains("not connected")
    })
    .await;
    let told = api
        .wait_event(PATIENCE, |event| note(event).contains("\"tpc\""))
        .await;
    told.unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("SIGTERM does not end the agent").unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{log}", output.status);
    for line in log.lines() {
        let json: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            json.get("component").is_some() && json.get("action").is_some(),
            "{line}"
        );
    }
    assert!(!log.contains("0123456789abcdef"), "the token is in the log");
}
