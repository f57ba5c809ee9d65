//! The edge is killed with SIGKILL in the middle of kernel-path traffic and started again: nobody notices.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exposer_testkit::netns::Handle;
use exposer_testkit::traffic::{SlowTransfer, UdpCounter};
use exposer_testkit::{interrupt, tools};

use super::{GAME, WEB};
use crate::settings::Route;
use crate::stage::Stage;

/// The transfer: 60 MB at about 2 MB/s, so that the kill and the restart fall into its middle on a slow machine too;
/// what is left when the daemon is back comes at full speed.
const BYTES: u64 = 60_000_000;
const CHUNK: u64 = 20_000;
const PAUSE: Duration = Duration::from_millis(10);
/// How long nothing may come: far above the noise of a busy machine. That bytes came while the daemon was dead is asked
/// for besides.
const GAP: Duration = Duration::from_secs(3);

/// Kills and restarts the daemon while a download and a UDP stream run.
pub fn run(stage: &mut Stage) -> Result<String> {
    let client = stage.far_client();
    let web = stage.answering(WEB.0, WEB.1, "tcp")?;
    let game = stage.answering(GAME.0, GAME.1, "udp")?;
    let map = map_id(&stage.pin("FLOWS"))?;
    let refusals = refusals(&stage.network.client)?;

    let slow = SlowTransfer::start(&client, web, BYTES, CHUNK, PAUSE)?;
    let steady = UdpCounter::start(&client, game, Duration::from_millis(5))?;
    interrupt::sleep(Duration::from_millis(1_500))?;
    let at_kill = slow.arrived();
    stage.kill_edge()?;
    interrupt::sleep(Duration::from_millis(1_500))?;
    let while_dead = slow.arrived().saturating_sub(at_kill);
    let in_the_middle = at_kill > 0 && while_dead > 0 && !slow.is_finished();
    let new_while_dead = client.ask_name(web, Duration::from_secs(2));
    stage.start_edge(Route::Kernel)?;
    stage.wait_ready()?;
    let still_running = !slow.is_finished();
    interrupt::sleep(Duration::from_millis(500))?;
    // Before the rest of the download comes at full speed: a full queue in the tunnel drops datagrams by right.
    let steady = steady.stop()?;
    slow.hurry()?;
    let slow = slow.finish()?;

    slow.transfer.check()?;
    ensure!(
        in_the_middle && still_running,
        "the restart did not fall into the transfer ({at_kill} B, {while_dead} B)"
    );
    ensure!(steady.lost == 0 && steady.refused == 0, "UDP: {steady:?}");
    ensure!(slow.longest_gap < GAP, "nothing came for {:?}", slow.longest_gap);
    let refused = self::refusals(&stage.network.client)?.saturating_sub(refusals);
    ensure!(refused == 0, "the client saw {refused} resets or unreachables");
    ensure!(
        map_id(&stage.pin("FLOWS"))? == map,
        "the daemon made a new flow map instead of adopting the pinned one"
    );
    let name = new_while_dead.context("a new connection while the daemon was dead")?;
    Ok(format!(
        "{} MB intact, {:.1} MB of it while the daemon was dead, longest gap {} ms; UDP {} sent, {} lost; 0 resets or \
         unreachables; a new connection meanwhile answered by {name}; flow map {map} adopted",
        BYTES / 1_000_000,
        megabytes(while_dead),
        slow.longest_gap.as_millis(),
        steady.sent,
        steady.lost
    ))
}

/// Connections reset and destinations unreachable, as the client's kernel counted them.
fn refusals(client: &Handle) -> Result<u64> {
    let counters = [
        ("Tcp", "EstabResets"),
        ("Tcp", "AttemptFails"),
        ("Icmp", "InDestUnreachs"),
    ];
    counters.iter().try_fold(0_u64, |sum, (group, field)| {
        Ok(sum.saturating_add(client.counter(group, field)?))
    })
}

/// The kernel's number of a pinned map: the same number is the same map.
fn map_id(pin: &Path) -> Result<u64> {
    let mut bpftool = std::process::Command::new(tools::find("bpftool")?);
    let text = tools::stdout(bpftool.args(["--json", "map", "show", "pinned"]).arg(pin))?;
    let value: serde_json::Value = serde_json::from_str(&text).context("bpftool printed no JSON")?;
    value
        .get("id")
        .and_then(serde_json::Value::as_u64)
        .context("bpftool shows no map id")
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a size for a person to read")]
    let bytes = bytes as f64;
    bytes / 1e6
}
