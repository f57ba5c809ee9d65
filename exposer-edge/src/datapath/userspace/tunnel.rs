//! Binds sockets to the tunnel interface, and binds them again when the interface was made anew.
//!
//! `SO_BINDTODEVICE` remembers an interface index. After `wg-quick down` and `up` the name means another index, and a
//! socket that is bound to the old one sends and receives nothing. Binding it again, by name, mends it with its
//! connection: neither TCP nor a UDP peer notices more than a pause.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockRef, Socket};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The tunnel interface as the sockets see it.
#[derive(Debug)]
pub struct Tunnel {
    interface: Option<String>,
    changed: Notify,
}

impl Tunnel {
    /// The interface with this name, which need not exist; none binds to nothing.
    #[must_use]
    pub fn new(interface: Option<String>) -> Self {
        Self {
            interface,
            changed: Notify::new(),
        }
    }

    /// Binds a fresh socket.
    ///
    /// # Errors
    ///
    /// `ENODEV` while there is no such interface: whoever dials must not go on then.
    pub fn bind(&self, socket: &Socket) -> io::Result<()> {
        match &self.interface {
            Some(interface) => socket.bind_device(Some(interface.as_bytes())),
            None => Ok(()),
        }
    }

    /// Binds a socket again that [`Tunnel::bind`] has bound before. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    ///
    /// `ENODEV` while there is no such interface, `EPERM` without the capability. The socket is bound as before then.
    pub fn bind_again(&self, socket: &impl AsFd) -> io::Result<()> {
        match &self.interface {
            Some(interface) => SockRef::from(socket).bind_device(Some(interface.as_bytes())),
            None => Ok(()),
        }
    }

    /// Tells every [`Tunnel::changed`] that the interface was made anew.
    pub fn made_anew(&self) {
        self.changed.notify_waiters();
    }

    /// Ends when the interface was made anew after this call.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}
