//! The rows of the demo, one story a file. A row gets the stage with the edge on its path and returns what it measured,
//! or why it failed.

mod agent;
mod bulk;
mod conflict;
mod datagrams;
mod half_close;
mod live;
mod maps;
mod restart;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::settings::Route;
use crate::stage::Stage;

/// Service of the examples with a TCP port.
const WEB: (&str, u16) = ("nginx-test", 80);
/// Service of the examples with one port for TCP and UDP.
const GAME: (&str, u16) = ("minecraft", 25_565);

/// One row.
pub struct Row {
    /// For `--only`.
    pub name: &'static str,
    /// One line for a person.
    pub title: &'static str,
    /// The datapath that it shows.
    pub path: Route,
    /// Does it, and returns what was measured.
    pub run: fn(&mut Stage) -> Result<String>,
}

/// All rows, in their order: those of the kernel path first, so that the edge is set up anew only once.
pub const ALL: &[Row] = &[
    Row {
        name: "tcp-kernel",
        title: "TCP download and upload, kernel path",
        path: Route::Kernel,
        run: bulk::kernel,
    },
    Row {
        name: "udp-kernel",
        title: "UDP echo of 1,000 datagrams, kernel path",
        path: Route::Kernel,
        run: datagrams::kernel,
    },
    Row {
        name: "half-close-kernel",
        title: "half-close, kernel path",
        path: Route::Kernel,
        run: half_close::kernel,
    },
    Row {
        name: "live",
        title: "a Service added, changed and deleted live",
        path: Route::Kernel,
        run: live::run,
    },
    Row {
        name: "conflict",
        title: "two Services ask for the same port",
        path: Route::Kernel,
        run: conflict::run,
    },
    Row {
        name: "restart",
        title: "the edge killed in the middle of a transfer and started again",
        path: Route::Kernel,
        run: restart::run,
    },
    Row {
        name: "agent",
        title: "the agent killed and restarted, the control connection cut",
        path: Route::Kernel,
        run: agent::run,
    },
    Row {
        name: "maps",
        title: "the service map as bpftool prints it",
        path: Route::Kernel,
        run: maps::run,
    },
    Row {
        name: "tcp-userspace",
        title: "TCP download and upload, userspace path",
        path: Route::Userspace,
        run: bulk::userspace,
    },
    Row {
        name: "udp-userspace",
        title: "UDP echo of 1,000 datagrams, userspace path",
        path: Route::Userspace,
        run: datagrams::userspace,
    },
    Row {
        name: "half-close-userspace",
        title: "half-close, userspace path",
        path: Route::Userspace,
        run: half_close::userspace,
    },
];

/// The rows with these names; all, where none is given.
pub fn choose(names: &[String]) -> Result<Vec<&'static Row>> {
    for name in names {
        ALL.iter()
            .find(|row| row.name == name)
            .with_context(|| format!("there is no row \"{name}\"; --list shows the rows"))?;
    }
    Ok(ALL
        .iter()
        .filter(|row| names.is_empty() || names.iter().any(|name| name == row.name))
        .collect())
}

/// A Service manifest with one TCP port 80, published on `public`.
fn manifest(name: &str, public: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "annotations": {
                "expose.neverup.at/subdomain": name,
                "expose.neverup.at/ports": format!("{public}:80/tcp"),
            },
        },
        "spec": { "ports": [{ "name": "web", "port": 80, "protocol": "TCP" }] },
    })
}
