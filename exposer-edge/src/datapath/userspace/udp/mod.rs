//! UDP of one binding: a task for each public socket, a session for each client.

pub mod io;
pub mod session;
pub mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use exposer_common::model::Protocol;
use socket2::Socket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::io::{Datagrams, UdpIo};
use self::session::Session;
use self::table::{SessionKey, SessionTable};
use super::listener::Trouble;
use super::served::Served;
use super::stats::Failure;

/// After a session could not be opened for want of a tunnel or of descriptors, datagrams of clients without a session
/// are dropped for this long, so that a flood costs no system calls.
const PAUSE: Duration = Duration::from_millis(100);

/// A public UDP socket and its task. Dropped, its sessions end.
#[derive(Debug)]
pub struct UdpEndpoint {
    io: Arc<UdpIo>,
    stop: CancellationToken,
}

impl UdpEndpoint {
    /// Serves a socket made by [`super::listener::bind`]. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses an option, or the runtime can't watch the socket.
    pub fn start(
        socket: Socket,
        address: IpAddr,
        served: &Arc<Served>,
        table: &Arc<SessionTable>,
    ) -> std::io::Result<Self> {
        let io = UdpIo::bound(socket)?;
        io.widen(served.context.settings.udp_buffer_bytes);
        Ok(Self::resume(Arc::new(io), address, served, table))
    }

    /// Serves a socket that an earlier endpoint has let go of and whose tasks have not ended yet.
    pub fn resume(io: Arc<UdpIo>, address: IpAddr, served: &Arc<Served>, table: &Arc<SessionTable>) -> Self {
        let receiver = Receiver {
            local: SocketAddr::new(address, served.key.port),
            io: Arc::clone(&io),
            served: Arc::clone(served),
            table: Arc::clone(table),
            stop: served.context.over.child_token(),
            closed_until: None,
        };
        let stop = receiver.stop.clone();
        drop(served.context.tasks.spawn(receiver.run()));
        Self { io, stop }
    }

    /// The socket, as long as a task holds it: a port that is closed and opened again in the same moment is still bound.
    #[must_use]
    pub fn socket(&self) -> Weak<UdpIo> {
        Arc::downgrade(&self.io)
    }
}

impl Drop for UdpEndpoint {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The task of a public socket.
struct Receiver {
    local: SocketAddr,
    io: Arc<UdpIo>,
    served: Arc<Served>,
    table: Arc<SessionTable>,
    stop: CancellationToken,
    closed_until: Option<Instant>,
}

impl Receiver {
    async fn run(mut self) {
        let (io, stop) = (Arc::clone(&self.io), self.stop.clone());
        let mut trouble = Trouble::default();
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                received = io.receive(|datagrams| self.inbound(datagrams)) => received,
            };
            if let Err(error) = received
                && let Some(pause) = trouble.meet(&error, self.served.key)
            {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// Finds or makes the session of `datagrams` and sends them on.
    fn inbound(&mut self, datagrams: &Datagrams<'_>) {
        let address = match datagrams.destination {
            Some(address) if self.local.ip().is_unspecified() => address,
            _ => self.local.ip(),
        };
        let key = SessionKey {
            client: datagrams.sender,
            public: SocketAddr::new(address, self.local.port()),
        };
        match self.table.live(key).or_else(|| self.open(key)) {
            Some(session) => session.forward(datagrams, &self.served),
            None => self.served.counters.dropped(datagrams.count()),
        }
    }

    fn open(&mut self, key: SessionKey) -> Option<Arc<Session>> {
        let now = Instant::now();
        // Nothing can be sent back to port 0.
        if self.closed_until.is_some_and(|until| now < until) || key.client.port() == 0 {
            return None;
        }
        let context = &self.served.context;
        let permit = match context
            .limits
            .acquire(&self.served.load, key.client.ip(), Protocol::Udp)
        {
            Ok(permit) => permit,
            Err(failure) => {
                self.failed(key, failure, &"cap reached");
                return None;
            }
        };
        match Session::open(key, self.served.route(), &self.served, &self.io, permit) {
            Ok(session) => Some(self.begin(key, session)),
            Err(error) => {
                self.closed_until = now.checked_add(PAUSE);
                let lack = matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
                );
                self.failed(key, if lack { Failure::System } else { Failure::Timeout }, &error);
                None
            }
        }
    }

    fn begin(&self, key: SessionKey, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        self.table.insert(key, Arc::clone(&session));
        self.served.counters.begin();
        session.event(&self.served, "session");
        let running = Arc::clone(&session).run(
            Arc::clone(&self.served),
            Arc::clone(&self.table),
            Arc::clone(&self.io),
            self.stop.clone(),
        );
        drop(self.served.context.tasks.spawn(running));
        session
    }

    fn failed(&self, key: SessionKey, failure: Failure, error: &dyn std::fmt::Display) {
        self.served.counters.failed(failure);
        debug!(
            component = "userspace",
            port = self.served.key.port,
            protocol = %Protocol::Udp,
            action = "no session",
            client = %key.client,
            failure = ?failure,
            %error,
        );
    }
}
