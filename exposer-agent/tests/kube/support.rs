//! An agent's Kubernetes side that runs against an embedded API server, and the conditions that tests wait for.

use std::future::Future;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exposer_agent::desired::{Desired, DesiredReceiver, Outcomes};
use exposer_agent::kube::{KubeSettings, connect, run};
use exposer_common::k8s::AnnotationKeys;
use exposer_common::model::{ServiceId, ServiceRecord};
use exposer_testkit::kube_api::{KubeApi, Request};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

/// Generous: only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the agent logs, for tests that ask what it said.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The number of lines that contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.text().lines().filter(|line| line.contains(text)).count()
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running agent (its Kubernetes side) and its API server.
pub struct Agent {
    /// The cluster.
    pub api: KubeApi,
    /// What the agent logs.
    pub logs: Logs,
    /// Where an edge would send its outcomes.
    pub outcomes: mpsc::Sender<Outcomes>,
    desired: DesiredReceiver,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _subscriber: DefaultGuard,
}

/// An empty cluster.
pub fn cluster() -> KubeApi {
    KubeApi::start_on_loopback().unwrap()
}

impl Agent {
    /// An agent that watches all of `api`.
    pub async fn start(api: KubeApi) -> Self {
        Self::start_in(api, &[]).await
    }

    /// An agent that watches some namespaces of `api`.
    pub async fn start_in(api: KubeApi, namespaces: &[&str]) -> Self {
        let logs = Logs::default();
        let writer = logs.clone();
        // Each test has a thread of its own, and so has its subscriber.
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter("exposer_agent=debug")
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, api.kubeconfig_yaml()).unwrap();
        let client = connect(Some(&path)).await.unwrap();
        let settings = KubeSettings {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            keys: AnnotationKeys::default(),
            resync: Duration::from_secs(1),
            domain: "neverup.at".to_owned(),
        };
        let (sender, desired) = watch::channel(None);
        let (outcomes, words) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(client, settings, sender, words, stop.clone()));
        Self {
            api,
            logs,
            outcomes,
            desired,
            stop,
            task,
            _subscriber: guard,
        }
    }

    /// What is published at the moment.
    pub fn desired(&self) -> Option<Arc<Desired>> {
        self.desired.borrow().clone()
    }

    /// Waits until what is published is as `wanted` says.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Desired) -> bool) -> Arc<Desired> {
        let mut receiver = self.desired.clone();
        let found = async {
            let held = receiver
                .wait_for(|desired| desired.as_deref().is_some_and(&mut wanted))
                .await
                .unwrap();
            held.clone().unwrap()
        };
        self.within(what, found).await
    }

    /// Waits until exactly these Services (`namespace/name`) are published.
    pub async fn until_services(&mut self, names: &[&str]) -> Arc<Desired> {
        let what = format!("exactly the Services {names:?}");
        self.until(&what, |desired| {
            let published: Vec<String> = desired.services.keys().map(ToString::to_string).collect();
            published == names
        })
        .await
    }

    /// Waits until the API server has seen a request like this.
    pub async fn until_request(&self, what: &str, wanted: impl Fn(&Request) -> bool) {
        self.until_true(what, || self.api.requests().iter().any(&wanted))
            .await;
    }

    /// Waits until `condition` holds.
    pub async fn until_true(&self, what: &str, condition: impl Fn() -> bool) {
        let polling = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        self.within(what, polling).await;
    }

    /// Waits for an Event of `namespace/name` whose note contains `text`.
    pub async fn until_event(&self, service: &str, text: &str) -> Value {
        let event = self.api.wait_event(PATIENCE, |event| {
            regarding(event) == service && note(event).contains(text)
        });
        match event.await {
            Ok(event) => event,
            Err(error) => panic!("no Event of {service} with \"{text}\": {error}\n{}", self.state()),
        }
    }

    /// The notes of all Events of `namespace/name`.
    pub fn notes(&self, service: &str) -> Vec<String> {
        let events = self.api.events();
        let of_service = events.iter().filter(|event| regarding(event) == service);
        of_service.map(|event| note(event).to_owned()).collect()
    }

    /// How often a resource was listed with success, pages counted each.
    pub fn lists(&self, resource: &str) -> usize {
        let requests = self.api.requests();
        let lists = requests
            .iter()
            .filter(|request| request.verb == "list" && request.resource == resource && request.allowed);
        lists.count()
    }

    /// Stops the agent as SIGTERM does.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the agent does not stop")
            .unwrap();
    }

    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for {what}\n{}", self.state()),
        }
    }

    fn state(&self) -> String {
        let requests = self.api.requests();
        let last = requests.len().saturating_sub(30);
        format!(
            "published: {:#?}\nEvents: {:#?}\nlast requests: {:#?}\nlog:\n{}",
            self.desired(),
            self.api
                .events()
                .iter()
                .map(|event| (regarding(event), note(event).to_owned()))
                .collect::<Vec<_>>(),
            requests.get(last..),
            self.logs.text()
        )
    }
}

/// A Service with one TCP port 80 and these annotations after `expose.neverup.at/`.
pub fn service(name: &str, annotations: &[(&str, &str)]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("expose.neverup.at/{key}"), Value::from(*value)))
        .collect();
    serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "web", "port": 80 }] },
    })
}

/// The same, asking for port 80 under its own name.
pub fn exposed(name: &str) -> Value {
    let subdomain = name.rsplit('/').next().unwrap();
    service(name, &[("subdomain", subdomain), ("ports", "80/tcp")])
}

/// The record of `namespace/name`.
pub fn record<'a>(desired: &'a Desired, name: &str) -> &'a ServiceRecord {
    let (namespace, name) = name.split_once('/').unwrap();
    let id = ServiceId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    desired.services.get(&id).unwrap()
}

/// `namespace/name` of what an Event is about.
pub fn regarding(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    format!("{}/{}", text("/regarding/namespace"), text("/regarding/name"))
}

/// The note of an Event.
pub fn note(event: &Value) -> &str {
    event.get("note").and_then(Value::as_str).unwrap_or_default()
}
