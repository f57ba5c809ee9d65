//! Two Services ask for one public port: one gets it, the other one of the dynamic range, and both answer.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::manifest;
use crate::stage::Stage;

const PORT: u16 = 7_100;
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Adds both, asks both.
pub fn run(stage: &mut Stage) -> Result<String> {
    let names = ["demo-first", "demo-second"];
    for name in names {
        stage.expose(manifest(name, PORT))?;
    }
    let client = stage.far_client();
    let mut ports = Vec::new();
    for name in names {
        let to = stage.answering(name, PORT, "tcp")?;
        let answered = client.ask_name(to, Duration::from_secs(3))?;
        ensure!(
            answered == name,
            "port {} of {name} was answered by {answered}",
            to.port()
        );
        ports.push(to.port());
    }
    for name in names {
        stage.cluster.delete(name)?;
    }
    let original = ports.iter().filter(|port| **port == PORT).count();
    let dynamic = ports.iter().filter(|port| DYNAMIC.contains(port)).count();
    ensure!(
        original == 1 && dynamic == 1,
        "the Services got the ports {ports:?}"
    );
    let [first, second] = [ports.first(), ports.last()].map(|port| port.copied().unwrap_or_default());
    Ok(format!(
        "both asked for {PORT}: {} got {first}, {} got {second}, both answered",
        names[0], names[1]
    ))
}
