//! The Kubernetes API that the agent watches: the embedded one, or a real cluster's by `kubectl`.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use exposer_testkit::kube_api::KubeApi;
use exposer_testkit::netns::Handle;
use exposer_testkit::tools;
use serde_json::{Value, json};

use crate::{relay, report};

/// Where Services live.
pub enum Cluster {
    /// The API server of the test kit, listening on the home node's loopback address.
    Embedded {
        /// The server.
        api: KubeApi,
        /// Written for the agent and for `kubectl`.
        kubeconfig: PathBuf,
    },
    /// A real cluster, in a namespace of the demo's own.
    Real {
        /// Given on the command line; for `kubectl`.
        given: PathBuf,
        /// The same cluster through the relay; for the agent.
        kubeconfig: PathBuf,
        /// Made by the demo, deleted at its end.
        namespace: String,
    },
}

impl Cluster {
    /// Starts the embedded API inside the home node's namespace.
    pub fn embedded(home: &Handle, folder: &Path) -> Result<Self> {
        let listener =
            home.run(|| TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback"))?;
        let api = KubeApi::start(listener)?;
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig_yaml()).context("cannot write the kubeconfig")?;
        Ok(Self::Embedded { api, kubeconfig })
    }

    /// Uses the cluster of a kubeconfig, in a fresh namespace.
    pub fn real(given: &Path, home: &Handle, folder: &Path) -> Result<Self> {
        let given = fs::canonicalize(given)
            .with_context(|| format!("cannot find the kubeconfig {}", given.display()))?;
        let mut kubectl = Command::new(tools::find("kubectl")?);
        kubectl.arg("--kubeconfig").arg(&given);
        let text =
            tools::stdout(kubectl.args(["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]))?;
        let mut config: Value =
            serde_json::from_str(&text).context("`kubectl config view` printed no JSON")?;
        relay::redirect(&mut config, |server| relay::start(home, server))?;
        let kubeconfig = folder.join("kubeconfig");
        write_private(&kubeconfig, &config.to_string())?;
        let this = Self::Real {
            given,
            kubeconfig,
            namespace: format!("exposer-demo-{}", std::process::id()),
        };
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": this.namespace() } });
        this.apply_by_kubectl(&namespace)
            .context("the cluster does not let us make a namespace")?;
        Ok(this)
    }

    /// The namespace of the demo's Services.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Embedded { .. } => "default",
            Self::Real { namespace, .. } => namespace,
        }
    }

    /// What the agent is to watch: empty = everything.
    pub fn watched(&self) -> &str {
        match self {
            Self::Embedded { .. } => "",
            Self::Real { namespace, .. } => namespace,
        }
    }

    /// The kubeconfig as given or written.
    pub fn kubeconfig(&self) -> &Path {
        match self {
            Self::Embedded { kubeconfig, .. } | Self::Real { kubeconfig, .. } => kubeconfig,
        }
    }

    /// Creates or replaces a Service in the demo's namespace, and returns it as the API completed it.
    pub fn apply(&self, mut service: Value) -> Result<Value> {
        if let Some(metadata) = service.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".to_owned(), self.namespace().into());
        }
        match self {
            Self::Embedded { api, .. } => api.apply(&service),
            Self::Real { .. } => self.apply_by_kubectl(&service),
        }
    }

    /// Deletes a Service of the demo's namespace.
    pub fn delete(&self, name: &str) -> Result<()> {
        match self {
            Self::Embedded { api, .. } => api.delete(self.namespace(), name),
            Self::Real { namespace, .. } => {
                let mut kubectl = self.kubectl()?;
                tools::run(kubectl.args(["-n", namespace, "delete", "service", name])).map(|_| ())
            }
        }
    }

    /// What this is, for the report.
    pub fn describe(&self) -> String {
        match self {
            Self::Embedded { api, .. } => format!("embedded API server on the home node ({})", api.address()),
            Self::Real { given, namespace, .. } => {
                format!("the cluster of {}, namespace {namespace}", given.display())
            }
        }
    }

    fn kubectl(&self) -> Result<Command> {
        let mut kubectl = Command::new(tools::find("kubectl")?);
        let given = match self {
            Self::Embedded { kubeconfig, .. } => kubeconfig,
            Self::Real { given, .. } => given,
        };
        kubectl
            .arg("--kubeconfig")
            .arg(given)
            .arg("--request-timeout=10s");
        Ok(kubectl)
    }

    fn apply_by_kubectl(&self, service: &Value) -> Result<Value> {
        let mut kubectl = self.kubectl()?;
        let mut child = kubectl
            // The API server validates; kubectl's own validation needs more rights than the demo does.
            .args(["apply", "--validate=false", "-f", "-", "-o", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        if let Some(stdin) = child.stdin.take() {
            serde_json::to_writer(stdin, service).context("cannot write to kubectl")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "kubectl apply failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        serde_json::from_slice(&output.stdout).context("kubectl's answer is no JSON")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Self::Real { namespace, .. } = &*self else {
            return;
        };
        let deleted = self.kubectl().and_then(|mut kubectl| {
            tools::run(kubectl.args(["delete", "namespace", namespace, "--wait=false"]))
        });
        if let Err(error) = deleted {
            report::failure(&error.context(format!("the namespace {namespace} is left in the cluster")));
        }
    }
}

/// Writes a file that may hold credentials: readable by root alone.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The Services in the YAML files of a folder, in the order of file names.
pub fn services_of(folder: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read the manifests in {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml")
        })
        .collect();
    files.sort();
    let mut services = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = <Value as serde::Deserialize>::deserialize(document)
                .with_context(|| format!("{} is no YAML", file.display()))?;
            if object.get("kind").and_then(Value::as_str) == Some("Service") {
                services.push(object);
            }
        }
    }
    if services.is_empty() {
        bail!("{} holds no Service manifest", folder.display());
    }
    Ok(services)
}
