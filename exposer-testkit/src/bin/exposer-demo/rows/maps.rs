//! `bpftool map dump pinned …` of the service map: the debugging interface, with names that a person can read.

use anyhow::{Context as _, Result, ensure};
use exposer_testkit::tools;
use serde_json::Value;

use super::GAME;
use crate::report;
use crate::stage::Stage;

/// Entries that are shown.
const SHOWN: usize = 24;

/// Dumps the map for the person, and again as JSON to check the names.
pub fn run(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(GAME.0, GAME.1, "udp")?.port();
    let pin = stage.pin("SERVICES");
    let bpftool = tools::find("bpftool")?;
    let dump = |flag: &[&str]| {
        tools::stdout(
            std::process::Command::new(&bpftool)
                .args(flag)
                .args(["map", "dump", "pinned"])
                .arg(&pin),
        )
    };
    report::note(&format!("bpftool map dump pinned {}", pin.display()));
    for line in dump(&[])?.lines().take(SHOWN) {
        report::note(line);
    }
    let entries: Vec<Value> = serde_json::from_str(&dump(&["--json"])?).context("bpftool printed no JSON")?;
    let text = |entry: &Value, pointer: &str| entry.pointer(&format!("/formatted{pointer}")).cloned();
    let found = entries.iter().find(|entry| {
        text(entry, "/key/port") == Some(port.into())
            && text(entry, "/key/proto").is_some_and(|proto| proto == "Udp" || proto == "L4Proto::Udp")
    });
    let found =
        found.with_context(|| format!("no entry with key.port {port} and key.proto Udp: {entries:?}"))?;
    for field in [
        "/key/address",
        "/value/backend",
        "/value/backend_port",
        "/value/mode",
        "/value/generation",
    ] {
        ensure!(
            text(found, field).is_some(),
            "the entry has no readable {field}: {found}"
        );
    }
    let value = |pointer: &str| text(found, pointer).unwrap_or_default();
    Ok(format!(
        "{} entries with field names, e.g. address {} port {} proto {} → backend {} backend_port {}",
        entries.len(),
        value("/key/address"),
        value("/key/port"),
        value("/key/proto"),
        value("/value/backend"),
        value("/value/backend_port")
    ))
}
