//! The task that owns the core: everything that happens goes in, every command goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exposer_common::proto::auth::fresh_nonce;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::connection::Inbound;
use super::driver::{Driver, Job, News};
use super::notify;
use super::saver::Saver;
use super::status_view::{self, Observed};
use crate::control::core::{Command, ConnId, Core};
use crate::control::ports::ReservedPorts;
use crate::control::tokens::Tokens;
use crate::datapath::accelerator::Fallback;
use crate::net::environment::Environment;
use crate::readiness::{Block, Readiness};
use crate::status::Status;

/// How often the status is published and the watchdog is fed.
const TICK: Duration = Duration::from_secs(1);
/// With so many steps under way the connections have to wait: the datapath sets the pace.
const MAX_STEPS: usize = 4_096;
/// A save waits so long for further changes.
const SAVE_DELAY: Duration = Duration::from_millis(200);

/// Everything that the task works with.
#[derive(Debug)]
pub struct CoreTask<U> {
    /// The core, with what was restored.
    pub core: Core,
    /// The datapaths.
    pub driver: Driver<U>,
    /// What they tell.
    pub news: mpsc::UnboundedReceiver<News<Observed>>,
    /// What connections bring.
    pub inbound: mpsc::Receiver<Inbound>,
    /// The host's network.
    pub environment: watch::Receiver<Environment>,
    /// The host's own ports.
    pub reserved: watch::Receiver<ReservedPorts>,
    /// Who has to prove what.
    pub tokens: watch::Receiver<Tokens>,
    /// Public addresses as configured; empty = those of the environment.
    pub public_addresses: Vec<IpAddr>,
    /// Where the state goes.
    pub saver: Saver,
    /// Where the status goes.
    pub status: watch::Sender<Arc<Status>>,
    /// What stands in the way.
    pub readiness: Readiness,
    /// Start of the daemon, seconds since 1970.
    pub started: u64,
}

/// What only the running task needs.
struct Running {
    writers: BTreeMap<ConnId, mpsc::Sender<Vec<u8>>>,
    save_at: Option<Instant>,
    tunnel: Option<Block>,
    observing: bool,
    /// Steps that the datapath has not done yet.
    steps: usize,
}

/// What is left when the task is over.
#[derive(Debug)]
pub struct Ended<U> {
    /// The core, for a last save.
    pub core: Core,
    /// The datapaths, to be stopped.
    pub driver: Driver<U>,
    /// Where the last save goes.
    pub saver: Saver,
    /// Whether it ended because it was told to, and not because the datapath's thread died.
    pub on_demand: bool,
}

impl<U: Fallback + 'static> CoreTask<U> {
    /// Runs until `stop` is cancelled or the datapath's thread dies, then tells the agents, and gives the parts back
    /// that are to be ended.
    pub async fn run(mut self, stop: CancellationToken) -> Ended<U> {
        let mut running = Running {
            writers: BTreeMap::new(),
            save_at: None,
            tunnel: None,
            observing: false,
            steps: 0,
        };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.take_environment(&mut running);
        self.obey(&mut running);
        let on_demand = loop {
            let due = [self.core.poll_timeout(), running.save_at]
                .into_iter()
                .flatten()
                .min()
                .or_else(|| Instant::now().checked_add(TICK))
                .unwrap_or_else(Instant::now);
            tokio::select! {
                () = stop.cancelled() => break true,
                Some(inbound) = self.inbound.recv(), if running.steps < MAX_STEPS => self.take_inbound(inbound, &mut running),
                Some(news) = self.news.recv() => self.take_news(news, &mut running),
                Ok(()) = self.environment.changed() => self.take_environment(&mut running),
                Ok(()) = self.reserved.changed() => {
                    let reserved = self.reserved.borrow_and_update().clone();
                    self.core.handle_reserved_ports(reserved);
                }
                Ok(()) = self.tokens.changed() => {
                    let tokens = self.tokens.borrow_and_update().clone();
                    self.core.handle_tokens(tokens, Instant::now());
                }
                _ = ticks.tick() => {
                    if self.driver.is_over() {
                        error!(component = "app", "the datapath's thread has ended; this is a bug: please report it");
                        break false;
                    }
                    notify::alive();
                    if !std::mem::replace(&mut running.observing, true) {
                        self.driver.hand_in(Job::Observe);
                    }
                }
                () = sleep_until(due.into()) => self.core.handle_timeout(Instant::now()),
            }
            self.obey(&mut running);
            self.save_if_due(&mut running);
        };
        self.core.shut_down(Instant::now());
        self.obey(&mut running);
        Ended {
            core: self.core,
            driver: self.driver,
            saver: self.saver,
            on_demand,
        }
    }

    fn take_inbound(&mut self, inbound: Inbound, running: &mut Running) {
        let now = Instant::now();
        match inbound {
            Inbound::Connected { conn, peer, writer } => match fresh_nonce() {
                Ok(nonce) => {
                    running.writers.insert(conn, writer);
                    self.core.handle_connected(conn, peer, nonce, now);
                }
                // Dropping the writer closes the connection: without randomness nobody can be proven.
                Err(error) => warn!(component = "app", %error, "a control connection was refused"),
            },
            Inbound::Bytes { conn, bytes } => self.core.handle_bytes(conn, &bytes, now),
            Inbound::Closed { conn } => {
                running.writers.remove(&conn);
                self.core.handle_disconnected(conn, now);
            }
        }
    }

    fn take_news(&mut self, news: News<Observed>, running: &mut Running) {
        let now = Instant::now();
        match news {
            News::Done(key, step, report) => {
                running.steps = running.steps.saturating_sub(1);
                self.core.handle_programmed(key, step, report, now);
            }
            News::Path(change) => self
                .core
                .handle_path(change.key, change.generation, change.served, now),
            News::Observed(stats, observed) => {
                running.observing = false;
                let status = status_view::build(
                    &self.core,
                    &self.environment.borrow(),
                    self.readiness.reasons(),
                    self.started,
                    &stats,
                    *observed,
                );
                self.status.send_replace(Arc::new(status));
            }
        }
    }

    fn take_environment(&mut self, running: &mut Running) {
        let environment = self.environment.borrow_and_update().clone();
        let tunnel_up = environment.tunnel.ifindex.is_some();
        if tunnel_up {
            running.tunnel = None;
        } else if running.tunnel.is_none() {
            let name = &environment.tunnel.name;
            running.tunnel = Some(self.readiness.block(format!(
                "the tunnel interface {name} is missing or down; start it: wg-quick up {name}"
            )));
        }
        let public = if self.public_addresses.is_empty() {
            environment.public_addresses.clone()
        } else {
            self.public_addresses.clone()
        };
        let own: BTreeSet<IpAddr> = environment.own_addresses.iter().copied().collect();
        self.driver.hand_in(Job::Environment(Box::new(environment)));
        self.core
            .handle_environment(tunnel_up, public, own, Instant::now());
    }

    /// Carries out what the core wants.
    fn obey(&mut self, running: &mut Running) {
        while let Some(command) = self.core.next_command() {
            match command {
                Command::Send { conn, bytes } => {
                    let sent = running.writers.get(&conn).map(|writer| writer.try_send(bytes));
                    if matches!(sent, Some(Err(_))) {
                        debug!(
                            component = "app",
                            conn = conn.0,
                            "an agent reads too slowly, or not at all"
                        );
                        running.writers.remove(&conn);
                        self.core.handle_disconnected(conn, Instant::now());
                    }
                }
                Command::Close { conn } => {
                    running.writers.remove(&conn);
                }
                Command::Upsert {
                    step,
                    binding,
                    removal,
                } => {
                    running.steps = running.steps.saturating_add(1);
                    self.driver.hand_in(Job::Upsert(step, binding, removal));
                }
                Command::Remove { step, key, removal } => {
                    running.steps = running.steps.saturating_add(1);
                    self.driver.hand_in(Job::Remove(step, key, removal));
                }
                Command::SaveState => {
                    let soon = Instant::now().checked_add(SAVE_DELAY);
                    running.save_at = running.save_at.or(soon);
                }
            }
        }
    }

    fn save_if_due(&mut self, running: &mut Running) {
        let now = Instant::now();
        if running.save_at.is_none_or(|at| at > now) {
            return;
        }
        if self.saver.has_room() {
            running.save_at = None;
            self.saver.hand_in(self.core.saved_state(now));
        } else {
            running.save_at = now.checked_add(SAVE_DELAY);
        }
    }
}
