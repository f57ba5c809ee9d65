//! One UDP session: a client, a connected backend socket of its own, and the way back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::io::{Datagrams, UdpIo};
use super::table::{SessionKey, SessionTable};
use crate::datapath::userspace::limits::Permit;
use crate::datapath::userspace::served::{Route, Served};
use crate::datapath::userspace::stats::{Direction, Failure};

/// A session. Its task ends it: idle, or told so.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    route: Arc<Route>,
    backend: UdpIo,
    began: Instant,
    /// Milliseconds from `began` to the last datagram of either direction.
    last: AtomicU64,
    replied: AtomicBool,
    refused: AtomicBool,
    /// Whether the socket was bound again since a datagram last found its way.
    mended: AtomicBool,
    broken: AtomicBool,
    end: Notify,
    _permit: Permit,
}

impl Session {
    /// A session by `route`, with its socket bound to the tunnel interface and connected to the backend.
    ///
    /// # Errors
    ///
    /// What the system says: `ENODEV` and `ENETUNREACH` while the tunnel is down.
    pub fn open(
        key: SessionKey,
        route: Arc<Route>,
        served: &Served,
        public: &UdpIo,
        permit: Permit,
    ) -> io::Result<Self> {
        let backend = route.binding.backend;
        let socket = Socket::new(Domain::for_address(backend), Type::DGRAM.nonblocking(), None)?;
        served.context.tunnel.bind(&socket)?;
        socket.connect(&backend.into())?;
        Ok(Self {
            key,
            route,
            backend: UdpIo::connected(socket, public)?,
            began: Instant::now(),
            last: AtomicU64::new(0),
            replied: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            mended: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            end: Notify::new(),
            _permit: permit,
        })
    }

    /// Whether the session takes no more datagrams.
    #[must_use]
    pub fn ending(&self) -> bool {
        self.route.over.is_cancelled() || self.broken.load(Relaxed)
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Relaxed);
    }

    /// Sends what the client sent. Where the interface is gone the datagrams are lost, and where it was made anew the
    /// socket follows it. What still fails then ends the session (the tunnel's address changed, say): the client's next
    /// datagram makes a better one.
    pub fn forward(&self, datagrams: &Datagrams<'_>, served: &Served) {
        self.touch();
        let sent = self.backend.send(datagrams, self.route.binding.backend, None);
        account(served, Direction::In, datagrams, sent.datagrams, sent.bytes);
        if sent.datagrams > 0 {
            self.mended.store(false, Relaxed);
        }
        if sent.refused {
            self.note_refusal(served);
        }
        if sent.error.is_some_and(|error| way_is_gone(&error)) {
            self.mend(served);
        }
    }

    /// After a datagram found no way: binds the socket again. A session that fails again right after that ends.
    fn mend(&self, served: &Served) {
        match served.context.tunnel.bind_again(self.backend.socket()) {
            Ok(()) if !self.mended.swap(true, Relaxed) => {}
            // No interface: the next datagram asks again.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {}
            Ok(()) | Err(_) => {
                self.broken.store(true, Relaxed);
                self.end.notify_one();
            }
        }
    }

    /// Binds the socket anew as often as the interface is made anew. Never ends.
    async fn follow(&self, served: &Served) {
        loop {
            served.context.tunnel.changed().await;
            self.mended.store(false, Relaxed);
            self.mend(served);
        }
    }

    /// Carries replies until the session ends.
    pub async fn run(
        self: Arc<Self>,
        served: Arc<Served>,
        table: Arc<SessionTable>,
        public: Arc<UdpIo>,
        stop: CancellationToken,
    ) {
        let ended = async {
            tokio::select! {
                () = self.route.over.cancelled() => "removed",
                () = stop.cancelled() => "public address removed",
                () = self.end.notified() => "tunnel gone",
                () = self.follow(&served) => "tunnel gone",
                () = self.idle(&served) => "idle",
            }
        };
        let action = tokio::select! {
            action = ended => action,
            () = self.replies(&served, &public) => "closed",
        };
        table.remove(self.key, &self);
        served.counters.end();
        self.event(&served, action);
    }

    /// Never ends.
    async fn replies(&self, served: &Served, public: &UdpIo) {
        loop {
            let received = self.backend.receive(|datagrams| {
                self.touch();
                self.replied.store(true, Relaxed);
                let sent = public.send(datagrams, self.key.client, Some(self.key.public.ip()));
                account(served, Direction::Out, datagrams, sent.datagrams, sent.bytes);
            });
            match received.await {
                Ok(()) => {}
                // A device that went down is reported to its sockets once.
                Err(error) if way_is_gone(&error) => {}
                Err(_) => self.note_refusal(served),
            }
        }
    }

    /// ICMP errors say something about one datagram. The session goes on: a game server that restarts answers again a
    /// moment later. Counted and logged once a session.
    fn note_refusal(&self, served: &Served) {
        if !self.refused.swap(true, Relaxed) {
            served.counters.failed(Failure::Refused);
            self.event(served, "refused");
        }
    }

    /// Ends when nothing came for as long as the binding allows.
    async fn idle(&self, served: &Served) {
        let settings = &served.context.settings;
        let idle = self.route.binding.idle_timeout.unwrap_or(settings.udp_idle);
        loop {
            let limit = if self.replied.load(Relaxed) {
                idle
            } else {
                idle.min(settings.udp_unreplied)
            };
            let last = Duration::from_millis(self.last.load(Relaxed));
            let due = self.began.checked_add(last).and_then(|at| at.checked_add(limit));
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        }
    }

    /// One line of the log.
    pub fn event(&self, served: &Served, action: &'static str) {
        debug!(
            component = "userspace",
            service = %self.route.binding.service,
            port = served.key.port,
            protocol = %served.key.protocol,
            action,
            target = %self.route.binding.backend,
            client = %self.key.client,
            public = %self.key.public,
        );
    }
}

fn account(served: &Served, direction: Direction, datagrams: &Datagrams<'_>, sent: u64, bytes: u64) {
    served.counters.carried(direction, sent, bytes);
    let lost = datagrams.count().saturating_sub(sent);
    if lost > 0 {
        served.counters.dropped(lost);
    }
}

/// Whether `error` says that there is no way to the backend for this socket as it is bound.
fn way_is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENODEV | Errno::ENXIO | Errno::ENETDOWN | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL)
    )
}
