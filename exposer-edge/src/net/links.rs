//! Follows the host's interfaces, addresses and routes, and publishes them as one [`Environment`].
//!
//! The kernel's messages are taken as "something changed", never as the change itself: after each burst everything is
//! read anew. So a lost message (`ENOBUFS`), an unknown attribute or a change between two messages can't leave a
//! picture that never was; the worst case is a picture that is one re-read late. A slow periodic re-read heals even
//! a message that the kernel never sent.

mod dump;
mod resolve;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::BytesMut;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use rtnetlink::{MulticastGroup, sys::protocols::NETLINK_ROUTE};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::environment::Environment;
use crate::config::Config;

/// A burst of messages is over when none came for so long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is cut after so long.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Everything is read anew at least so often.
const RESYNC: Duration = Duration::from_secs(30);
/// Pause after a failure, before the next try.
const RETRY: Duration = Duration::from_secs(1);
/// Receive buffer of the message socket, in bytes: room for some thousand messages.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// What to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Name of the public interface; none = that of the default route.
    pub public_interface: Option<String>,
    /// Name of the tunnel interface.
    pub tunnel: String,
    /// Public addresses as given; empty = those of the public interface.
    pub public_addresses: Vec<IpAddr>,
    /// Source address of masqueraded packets; none = the tunnel's first IPv4 address.
    pub snat_address: Option<Ipv4Addr>,
}

impl From<&Config> for LinkSettings {
    fn from(config: &Config) -> Self {
        Self {
            public_interface: config.public_interface.clone(),
            tunnel: config.wireguard_interface.clone(),
            public_addresses: config.public_addresses.clone(),
            snat_address: config.snat_address,
        }
    }
}

/// Why the host's network can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket can't be made or used.
    #[error("rtnetlink: {0}; a sandbox may forbid it: allow AF_NETLINK (systemd: RestrictAddressFamilies=)")]
    Socket(#[from] std::io::Error),
    /// The kernel refused a request.
    #[error("rtnetlink: the kernel refused to list {what}: {error}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        error: String,
    },
    /// The connection ended in the middle of an answer.
    #[error("rtnetlink: the connection ended while {0} were listed")]
    Cut(&'static str),
    /// No answer.
    #[error("rtnetlink: no answer within {} s while {what} were listed", .after.as_secs())]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// How long it was waited.
        after: Duration,
    },
}

/// Reads the host's network once.
///
/// # Errors
///
/// When the kernel does not answer, or refuses.
pub async fn read(settings: &LinkSettings) -> Result<Environment, LinkError> {
    Ok(resolve::environment(settings, &dump::read().await?))
}

/// Publishes the environment whenever it changes, until nobody listens any more. Runs in the network namespace of the
/// thread that first polls it. Failures are logged and tried again; the last picture stands meanwhile.
pub async fn run(settings: LinkSettings, publish: watch::Sender<Environment>) {
    while !publish.is_closed() {
        if let Err(error) = follow(&settings, &publish).await {
            warn!(component = "links", action = "retry", %error, "can't follow the host's network; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Follows until nobody listens (`Ok`) or something fails.
async fn follow(settings: &LinkSettings, publish: &watch::Sender<Environment>) -> Result<(), LinkError> {
    // Subscribed before the first read, so that no change falls between the two.
    let socket = subscribe()?;
    loop {
        update(publish, read(settings).await?);
        tokio::select! {
            () = publish.closed() => return Ok(()),
            changed = timeout(RESYNC, burst(&socket)) => {
                if let Ok(changed) = changed {
                    changed?;
                }
            }
        }
    }
}

/// Publishes `environment` if it differs from the last one.
fn update(publish: &watch::Sender<Environment>, environment: Environment) {
    publish.send_if_modified(|last| {
        if *last == environment {
            return false;
        }
        if last.tunnel.ifindex != environment.tunnel.ifindex || last.wan.ifindex != environment.wan.ifindex {
            info!(
                component = "links",
                tunnel = environment.tunnel.name,
                tunnel_index = environment.tunnel.ifindex,
                wan = environment.wan.name,
                wan_index = environment.wan.ifindex,
                "interfaces changed"
            );
        }
        debug!(component = "links", ?environment, "the host's network changed");
        *last = environment;
        true
    });
}

/// A socket that hears of every change of links, addresses and routes.
fn subscribe() -> Result<TokioSocket, LinkError> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
    for group in [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ] {
        inner.add_membership(group as u32)?;
    }
    Ok(socket)
}

/// Waits for a message, then until the burst that it belongs to is over.
async fn burst(socket: &TokioSocket) -> Result<(), LinkError> {
    hear(socket).await?;
    let end = Instant::now()
        .checked_add(LONGEST_BURST)
        .unwrap_or_else(Instant::now);
    while Instant::now() < end {
        let quiet = Instant::now()
            .checked_add(QUIET)
            .map_or(end, |quiet| quiet.min(end));
        match timeout_at(quiet, hear(socket)).await {
            Ok(heard) => heard?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Waits for one message. What it says does not matter, nor does it if some were lost before it.
async fn hear(socket: &TokioSocket) -> Result<(), LinkError> {
    let mut buffer = BytesMut::with_capacity(4096);
    match socket.recv(&mut buffer).await {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            debug!(
                component = "links",
                "the kernel lost messages; everything is read anew"
            );
            Ok(())
        }
        other => Ok(other?),
    }
}
