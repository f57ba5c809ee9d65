//! The connection to the API server: where its configuration comes from, and what its errors mean to a person.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use ::kube::runtime::watcher;
use ::kube::{Client, Config};
use thiserror::Error;

/// A request to which the API server says nothing for so long is given up: longer than [`super::watch::WATCH_SECONDS`].
const SILENCE: Duration = Duration::from_secs(150);

/// Why there is no client at all. Waiting does not mend any of these.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no way to reach a cluster: there is neither a usable kubeconfig nor a service account. Inside a cluster, run \
         the agent as a pod with automountServiceAccountToken; outside, pass --kubeconfig PATH or set KUBECONFIG \
         ({0})"
    )]
    Infer(#[source] Box<InferConfigError>),
    /// The kubeconfig that was asked for can't be used.
    #[error("kubeconfig {path} can't be used: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The configuration was read, but no client can be made of it.
    #[error("the Kubernetes configuration can't be used (certificates, proxy or authentication): {0}")]
    Client(#[source] Box<::kube::Error>),
}

/// A client for the cluster of `kubeconfig`, or for the one that the environment names: `KUBECONFIG`, `~/.kube/config`,
/// or the service account of the pod. No request is made yet.
///
/// # Errors
///
/// Where the configuration is missing or not usable.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        None => Config::infer()
            .await
            .map_err(|error| ConnectError::Infer(Box::new(error)))?,
        Some(path) => {
            let failed = |error| ConnectError::Kubeconfig {
                path: path.to_owned(),
                source: Box::new(error),
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
    };
    // A list whose answer never comes would wait for ever; a watch has a shorter limit of its own.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
}

/// The API error behind a watch error, if the API server answered at all.
fn api_status(error: &watcher::Error) -> Option<&::kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(::kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(::kube::Error::Api(status))
        | watcher::Error::WatchFailed(::kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// Whether RBAC refused the watch.
#[must_use]
pub fn is_forbidden(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(::kube::core::Status::is_forbidden)
}

/// Whether the history that the watch needs is gone (410): the objects are listed anew, which is part of the protocol.
#[must_use]
pub fn is_expired(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(|status| status.code == 410)
}

/// What a failed watch of `resource` (plural) in `place` means, and what to do about it.
#[must_use]
pub fn explain(resource: &str, place: &str, error: &watcher::Error) -> String {
    match api_status(error) {
        Some(status) if status.is_forbidden() => format!(
            "the API server does not let the agent watch {resource} in {place}: {}. Apply deploy/kubernetes (ClusterRole \
             exposer-agent, verbs get, list and watch, and its ClusterRoleBinding), and check that the pod runs as its \
             service account",
            status.message
        ),
        Some(status) if status.code == 401 => format!(
            "the API server refuses the agent's credentials (401 on {resource} in {place}). In a pod: check the service \
             account and automountServiceAccountToken; with a kubeconfig: check its user, the token or certificate may \
             have expired"
        ),
        Some(status) => format!(
            "the API server answered {} to the watch of {resource} in {place}: {}",
            status.code, status.message
        ),
        None => format!(
            "the watch of {resource} in {place} failed: {}. Check that the API server's address is right and reachable \
             from here (network policy, DNS, kubeconfig)",
            chain(error)
        ),
    }
}

/// The text of the innermost causes, which alone say what happened to a connection.
fn chain(error: &watcher::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = inner.source();
    }
    texts.join(": ")
}
