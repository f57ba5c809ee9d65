//! Follows the ports that the host itself uses.

use std::time::Duration;

use exposer_common::model::Protocol;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::config::Config;
use crate::control::ports::ReservedPorts;
use crate::datapath::BindingKey;
use crate::net::listeners;

/// How often the host's sockets are looked through.
const PAUSE: Duration = Duration::from_secs(30);

/// Ports of the edge itself, whatever else listens.
#[must_use]
pub fn own(config: &Config) -> ReservedPorts {
    let tcp = |port| BindingKey {
        port,
        protocol: Protocol::Tcp,
    };
    ReservedPorts::from([
        (
            tcp(config.listen.port()),
            "the edge's own control port".to_owned(),
        ),
        (tcp(config.admin.port()), "the edge's own admin port".to_owned()),
    ])
}

/// All ports that no Service may have, at this moment. What can't be read is a warning: the listener of the userspace
/// path finds a port that is in use all the same.
pub async fn look(own: &ReservedPorts) -> ReservedPorts {
    let scanned = match tokio::task::spawn_blocking(listeners::scan).await {
        Ok(Ok(found)) => listeners::reserved(&found),
        Ok(Err(error)) => {
            warn!(component = "app", %error, "the ports that this host uses can't be listed");
            ReservedPorts::new()
        }
        Err(error) => {
            warn!(component = "app", %error, "the search for ports that this host uses failed");
            ReservedPorts::new()
        }
    };
    let mut all = scanned;
    all.extend(own.clone());
    all
}

/// Looks again every half minute, until nobody listens.
pub async fn follow(own: ReservedPorts, publish: watch::Sender<ReservedPorts>) {
    while !publish.is_closed() {
        sleep(PAUSE).await;
        let found = look(&own).await;
        publish.send_if_modified(|last| {
            let news = *last != found;
            if news {
                *last = found;
            }
            news
        });
    }
}
