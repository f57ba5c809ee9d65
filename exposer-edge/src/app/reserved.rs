//! Follows the ports that the host itself uses.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::control::ports::ReservedPorts;
use crate::net::reserved::scan;

/// How often the host's sockets and rules are looked through.
const PAUSE: Duration = Duration::from_secs(30);

/// Looks again every half minute, until nobody listens.
pub async fn follow(config: Config, publish: watch::Sender<ReservedPorts>) {
    while !publish.is_closed() {
        sleep(PAUSE).await;
        let found = scan(&config).await;
        publish.send_if_modified(|last| {
            let news = *last != found;
            if news {
                *last = found;
            }
            news
        });
    }
}
