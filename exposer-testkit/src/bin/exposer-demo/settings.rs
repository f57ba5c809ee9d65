//! Environment variables of the edge and the agent, as an operator would set them (REQUIREMENTS A7, A8).

use std::path::Path;

use exposer_testkit::topology::EDGE_TUNNEL;

/// Port of the control channel.
pub const CONTROL_PORT: u16 = 9090;
/// Where the edge's admin API listens.
pub const ADMIN: &str = "127.0.0.1:9091";

/// Which datapath a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The BPF programs.
    Kernel,
    /// The userspace proxy alone.
    Userspace,
}

impl Route {
    /// The value of `EXPOSER_DATAPATH`. The kernel path is shown with the default, which falls back to userspace: a row
    /// fails then, with the edge's reason.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Kernel => "auto",
            Self::Userspace => "userspace",
        }
    }

    /// The value of `path` in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// The edge's variables.
pub fn edge(folder: &Path, bpffs: &Path, path: Route, log_level: &str) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("EXPOSER_LISTEN_ADDR", format!("{EDGE_TUNNEL}:{CONTROL_PORT}")),
        ("EXPOSER_TOKEN_FILE", text(&folder.join("token"))),
        ("EXPOSER_STATE_DIR", text(&folder.join("state"))),
        ("EXPOSER_BPFFS", text(&bpffs.join("exposer"))),
        ("EXPOSER_ADMIN_ADDR", ADMIN.to_owned()),
        ("EXPOSER_DATAPATH", path.setting().to_owned()),
        ("EXPOSER_LOG_LEVEL", log_level.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The agent's variables.
pub fn agent(folder: &Path, kubeconfig: &Path, namespaces: &str, log_level: &str) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("SERVER_ADDR", format!("{EDGE_TUNNEL}:{CONTROL_PORT}")),
        ("TOKEN_FILE", text(&folder.join("token"))),
        ("KUBECONFIG", text(kubeconfig)),
        ("WATCH_NAMESPACES", namespaces.to_owned()),
        ("METRICS_ADDR", "127.0.0.1:8080".to_owned()),
        ("LOG_LEVEL", log_level.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
