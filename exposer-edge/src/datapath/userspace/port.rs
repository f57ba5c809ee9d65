//! One binding with its public sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use exposer_common::model::Protocol;
use tokio::time::Instant;

use super::listener::{self, TcpEndpoint};
use super::served::Served;
use super::udp::UdpEndpoint;
use super::udp::io::UdpIo;
use super::udp::table::SessionTable;
use crate::datapath::{BindingKey, DatapathError, Removal};

/// A public socket.
#[derive(Debug)]
pub enum Endpoint {
    /// Held for its `Drop`, which closes it.
    Tcp { _listener: TcpEndpoint },
    /// Also asked for its socket.
    Udp(UdpEndpoint),
}

/// One binding with its sockets.
#[derive(Debug)]
pub struct Port {
    /// What its listeners, connections and sessions share.
    pub served: Arc<Served>,
    /// UDP only: empty for TCP.
    pub sessions: Arc<SessionTable>,
    /// Its sockets, by public address.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// When a missing address was last reported.
    pub reported: Option<Instant>,
}

/// UDP sockets on their way to be closed.
pub type Closing = BTreeMap<(BindingKey, IpAddr), Weak<UdpIo>>;

impl Port {
    /// A binding without sockets.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self {
            served: Arc::new(served),
            sessions: Arc::default(),
            endpoints: BTreeMap::new(),
            reported: None,
        }
    }

    /// Opens what is missing of `addresses`.
    ///
    /// # Errors
    ///
    /// The first one; all addresses are tried.
    pub fn complete(&mut self, addresses: &[IpAddr], closing: &mut Closing) -> Result<(), DatapathError> {
        let mut outcome = Ok(());
        for address in addresses {
            if !self.endpoints.contains_key(address) {
                outcome = outcome.and(self.open(*address, closing));
            }
        }
        outcome
    }

    fn open(&mut self, address: IpAddr, closing: &mut Closing) -> Result<(), DatapathError> {
        let key = self.served.key;
        let present = closing
            .remove(&(key, address))
            .and_then(|socket| socket.upgrade());
        let endpoint = if let Some(io) = present {
            Endpoint::Udp(UdpEndpoint::resume(io, address, &self.served, &self.sessions))
        } else {
            let socket = listener::bind(key, address)?;
            let started = match key.protocol {
                Protocol::Tcp => TcpEndpoint::start(socket, &self.served)
                    .map(|listener| Endpoint::Tcp { _listener: listener }),
                Protocol::Udp => {
                    UdpEndpoint::start(socket, address, &self.served, &self.sessions).map(Endpoint::Udp)
                }
            };
            started.map_err(|source| DatapathError::System {
                action: format!("could not serve {key} on {address}"),
                source,
            })?
        };
        self.endpoints.insert(address, endpoint);
        Ok(())
    }

    /// Closes the sockets of all addresses that are not in `keep`, at once.
    pub fn close(&mut self, keep: &[IpAddr], closing: &mut Closing) {
        let key = self.served.key;
        self.endpoints.retain(|address, endpoint| {
            let stays = keep.contains(address);
            if let Endpoint::Udp(udp) = endpoint
                && !stays
            {
                closing.insert((key, *address), udp.socket());
            }
            stays
        });
    }

    /// How long connections go on after this route is over: UDP sessions end at once (DESIGN §5).
    #[must_use]
    pub fn drain(&self, removal: Removal) -> Duration {
        match self.served.key.protocol {
            Protocol::Tcp => removal.drain,
            Protocol::Udp => Duration::ZERO,
        }
    }
}
