//! A Service is added, gets another public port, and is deleted, while the clock runs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use exposer_testkit::process::wait_until;
use exposer_testkit::traffic::Client;

use super::manifest;
use crate::stage::{PATIENCE, Stage};

const NAME: &str = "demo-live";
const FIRST: u16 = 7_000;
const SECOND: u16 = 7_001;

/// How long one attempt may take: well above the round trip, well below what is measured.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Adds, changes, deletes.
pub fn run(stage: &mut Stage) -> Result<String> {
    let client = stage.far_client();
    let (first, second) = (stage.network.public(FIRST), stage.network.public(SECOND));
    ensure!(
        client.connect(first).is_err(),
        "port {FIRST} answers before the Service exists"
    );
    let clock = Instant::now();
    stage.expose(manifest(NAME, FIRST))?;
    until_answers(&client, first)?;
    let added = clock.elapsed();
    let clock = Instant::now();
    stage.cluster.apply(manifest(NAME, SECOND))?;
    until_answers(&client, second)?;
    let changed = clock.elapsed();
    until_closed(&client, first)?;
    let closed = clock.elapsed();
    let clock = Instant::now();
    stage.cluster.delete(NAME)?;
    until_closed(&client, second)?;
    let deleted = clock.elapsed();
    Ok(format!(
        "added: answered after {} ms (its server started meanwhile); port changed: new one answered after {} ms, old one closed after {} ms; deleted: \
         closed after {} ms",
        added.as_millis(),
        changed.as_millis(),
        closed.as_millis(),
        deleted.as_millis()
    ))
}

fn until_answers(client: &Client, to: SocketAddr) -> Result<()> {
    let (name, _) = wait_until(&format!("{to} to answer"), PATIENCE, || {
        client.ask_name(to, ATTEMPT)
    })?;
    ensure!(name == NAME, "{to} was answered by {name}");
    Ok(())
}

/// A port is closed when the edge's own stack refuses it: nobody listens, and the programs leave it alone.
pub fn until_closed(client: &Client, to: SocketAddr) -> Result<Duration> {
    let ((), took) = wait_until(&format!("{to} to be closed"), PATIENCE, || {
        match client.connect_within(to, ATTEMPT) {
            Ok(_) => bail!("{to} still accepts connections"),
            Err(error) => {
                let refused = error
                    .root_cause()
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
                ensure!(refused, "{to} is not refused but: {error:#}");
                Ok(())
            }
        }
    })?;
    Ok(took)
}
