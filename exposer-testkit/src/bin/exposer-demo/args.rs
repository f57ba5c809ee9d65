//! What was typed.

use std::path::PathBuf;

use clap::Parser;

/// Shows Exposer's main job on this machine: real binaries, real WireGuard, real traffic, in network namespaces.
///
/// Makes the namespaces client (the internet), edge (the VPS) and home (the cluster's node), runs exposer-edge and
/// exposer-agent in them, and prints a table of what was measured. Exit status 0: every row passed. Needs root.
#[derive(Debug, Parser)]
#[command(name = "exposer-demo", max_term_width = 110)]
pub struct Args {
    /// Leave everything running after the rows and say how to look at it, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Run only this row (may be given several times); see --list.
    #[arg(long, value_name = "ROW")]
    pub only: Vec<String>,
    /// List the rows and end.
    #[arg(long)]
    pub list: bool,
    /// Use the cluster of this kubeconfig (its Services and Events, in a namespace that the demo makes and deletes)
    /// instead of the embedded Kubernetes API. Pods are played by the demo either way.
    #[arg(long, value_name = "PATH", env = "EXPOSER_DEMO_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Size of each bulk transfer, in megabytes (10^6 bytes).
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub megabytes: u64,
    /// Folder with the manifests whose Services are exposed [default: deploy/examples of the source tree].
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Let edge and agent log at this level (their logs are shown when a row fails).
    #[arg(long, value_name = "LEVEL", default_value = "DEBUG")]
    pub log_level: String,
}
