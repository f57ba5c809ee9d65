//! The agent is killed, a Service deleted meanwhile, the agent started again; then its connection is cut in the middle.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use exposer_testkit::cut;
use exposer_testkit::process::wait_until;
use exposer_testkit::topology::EDGE_TUNNEL;
use exposer_testkit::traffic::UdpCounter;

use super::live::until_closed;
use super::{GAME, manifest};
use crate::settings::CONTROL_PORT;
use crate::stage::{PATIENCE, Stage};

const NAME: &str = "demo-gone";
const PORT: u16 = 7_200;

/// Both stories, with a UDP stream through another Service all the time.
pub fn run(stage: &mut Stage) -> Result<String> {
    let client = stage.far_client();
    let game = stage.answering(GAME.0, GAME.1, "udp")?;
    stage.expose(manifest(NAME, PORT))?;
    let gone = stage.answering(NAME, PORT, "tcp")?;
    client.ask_name(gone, Duration::from_secs(3))?;

    let steady = UdpCounter::start(&client, game, Duration::from_millis(10))?;
    stage.kill_agent()?;
    stage.cluster.delete(NAME)?;
    wait_until("the edge to see that the agent is away", PATIENCE, || {
        ensure!(!connected(stage)?, "the edge still counts the agent as connected");
        Ok(())
    })?;
    let stayed = client.ask_name(gone, Duration::from_secs(3))?;
    ensure!(stayed == NAME, "{gone} was answered by {stayed}");
    stage.start_agent()?;
    let closed = until_closed(&client, gone)?;
    stage.wait_ready()?;

    let old = peer(stage)?;
    let control = SocketAddrV4::new(EDGE_TUNNEL, CONTROL_PORT);
    let cut = cut::connections(&stage.network.home, stage.agent_pid()?, control)?;
    let ((), back) = wait_until("the agent to connect again", PATIENCE, || match peer(stage) {
        Ok(new) if new != old => Ok(()),
        Ok(_) => bail!("the edge has no new connection"),
        Err(error) => Err(error),
    })?;
    stage.wait_ready()?;
    let steady = steady.stop()?;
    ensure!(
        steady.lost == 0 && steady.refused == 0,
        "UDP through {}: {steady:?}",
        GAME.0
    );
    Ok(format!(
        "agent killed: Services stayed up, the one deleted meanwhile closed {} ms after its restart; {cut} control \
         connection cut: seen back in the status after {} ms; UDP all along: {} sent, {} lost",
        closed.as_millis(),
        back.as_millis(),
        steady.sent,
        steady.lost
    ))
}

fn connected(stage: &Stage) -> Result<bool> {
    Ok(stage.status()?.agents.iter().any(|agent| agent.peer.is_some()))
}

/// Where the agent is connected from.
fn peer(stage: &Stage) -> Result<String> {
    let status = stage.status()?;
    let Some(peer) = status.agents.into_iter().find_map(|agent| agent.peer) else {
        bail!("no agent is connected");
    };
    Ok(peer)
}
