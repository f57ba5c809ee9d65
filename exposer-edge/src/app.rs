//! The only wiring: it owns sockets, timers, threads and files, and carries values between the core and the datapaths.
//!
//! ```text
//!  control listener ─► connection tasks ─► core task ─► datapath thread (userspace + kernel)
//!  rtnetlink, /proc ─────────────────────►    │   ◄──── results, path changes, counters
//!                                             ├──► saver ─► state.json
//!                                             └──► status ─► admin API
//! ```

mod connection;
mod core_task;
mod datapaths;
mod driver;
mod error;
mod notify;
mod reserved;
mod saver;
mod status_view;
mod token;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::error::AppError;

use self::core_task::{CoreTask, Ended};
use self::datapaths::{Paths, ZonePair};
use self::driver::Driver;
use self::saver::Saver;
use crate::config::Config;
use crate::control::core::{Core, Settings};
use crate::control::state_file::{Loaded, SavedState, StateFile};
use crate::datapath::userspace::UserspaceDatapath;
use crate::net::environment::Environment;
use crate::net::links::{self, LinkSettings};
use crate::readiness::Readiness;
use crate::status::Status;
use crate::token_store::TokenStore;
use crate::{admin, net};

/// How long userspace connections may go on when the daemon ends. Kernel-path flows go on without it.
const SHUTDOWN_DRAIN: Duration = Duration::from_secs(10);
/// How long the last save may take.
const LAST_SAVE: Duration = Duration::from_secs(5);
/// How long agents may take to hear that the edge ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pieces from connections that may wait for the core.
const INBOUND_QUEUE: usize = 256;
/// Zone name of the public interface while none is configured: that of the default route may change its name.
const DEFAULT_WAN: &str = "(default route)";

/// Runs the daemon until SIGTERM or SIGINT; a second signal skips the draining of userspace connections.
///
/// # Errors
///
/// What keeps it from starting, in words for the operator.
pub async fn run(config: Config) -> Result<(), AppError> {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let system = |source| AppError::System {
        action: "handling signals",
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let (first, second) = (stop.clone(), hurry.clone());
    tokio::spawn(async move {
        for token in [first, second] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    run_until(config, stop, hurry).await
}

/// Runs the daemon until `stop` is cancelled; `hurry` skips the draining of userspace connections.
///
/// # Errors
///
/// What keeps it from starting, in words for the operator.
pub async fn run_until(
    config: Config,
    stop: CancellationToken,
    hurry: CancellationToken,
) -> Result<(), AppError> {
    let store = TokenStore::new(&config.state_dir);
    let (tokens, token_files) = token::read_all(&config.token_file, &store)?;
    let _lock = lock(&config)?;
    let file = StateFile::new(config.state_dir.clone());
    let saved = load(&file).await;
    let admin = admin::listen(config.admin).await?;
    let ports = net::reserved::scan(&config).await;
    let environment = first_environment(&config).await;
    let (retoken, tokens) = watch::channel(tokens);
    let settings = Settings {
        tokens: tokens.borrow().clone(),
        dynamic_ports: config.dynamic_ports.first()..=config.dynamic_ports.last(),
        stale_after: config.stale_after,
        drain: config.drain,
    };
    let mut core = Core::new(settings, ports.clone());
    if let Some(saved) = saved {
        core.restore(saved, Instant::now());
    }
    let zones = zones(&mut core, &config)?;
    let Paths {
        combined,
        why_userspace,
    } = datapaths::open(&config, zones)?;
    let (news, heard) = mpsc::unbounded_channel();
    let configured = config.datapath;
    let observe = move |combined: &_| datapaths::observe(combined, configured, why_userspace.as_deref());
    let driver = Driver::start(combined, observe, news).map_err(|source| AppError::System {
        action: "starting the datapath's thread",
        source,
    })?;

    let readiness = Readiness::new();
    let (inbound, arrivals) = mpsc::channel(INBOUND_QUEUE);
    let (environment, network) = watch::channel(environment);
    let (reserve, host_ports) = watch::channel(ports);
    let (status, shown) = watch::channel(Arc::new(Status::default()));
    let mut tasks = JoinSet::new();
    tasks.spawn(links::run(LinkSettings::from(&config), environment));
    tasks.spawn(reserved::follow(config.clone(), reserve));
    tasks.spawn(token::follow(store, token_files, retoken));
    let connections = TaskTracker::new();
    tasks.spawn(connection::listen(
        config.listen,
        readiness.clone(),
        inbound,
        connections.clone(),
    ));
    let quit = CancellationToken::new();
    tasks.spawn(serve_admin(admin, shown, quit.clone()));
    let task = CoreTask {
        core,
        driver,
        news: heard,
        inbound: arrivals,
        environment: network,
        reserved: host_ports,
        tokens,
        public_addresses: config.public_addresses.clone(),
        saver: Saver::start(file),
        status,
        readiness,
        started: status_view::unix_now(),
    };
    notify::ready();
    info!(component = "app", action = "start", datapath = %config.datapath, "the edge runs");
    let ended = task.run(stop).await;
    let on_demand = ended.on_demand;
    connections.close();
    quit.cancel();
    shut_down(ended, hurry).await;
    let _late = tokio::time::timeout(LAST_WORDS, connections.wait()).await;
    tasks.shutdown().await;
    if on_demand {
        Ok(())
    } else {
        Err(AppError::DatapathEnded)
    }
}

async fn serve_admin(listener: TcpListener, shown: admin::StatusReceiver, end: CancellationToken) {
    if let Err(error) = admin::serve(listener, shown, end).await {
        warn!(component = "app", %error, "the admin API has ended");
    }
}

/// Saves, and lets userspace connections end. What the kernel path carries goes on.
async fn shut_down(ended: Ended<UserspaceDatapath>, hurry: CancellationToken) {
    let Ended {
        mut core,
        driver,
        saver,
        on_demand: _,
    } = ended;
    info!(
        component = "app",
        action = "stop",
        "the edge ends; kernel-path flows go on"
    );
    notify::stopping(SHUTDOWN_DRAIN.saturating_add(LAST_SAVE));
    let state = core.saved_state(Instant::now());
    if !saver.finish(state, LAST_SAVE).await {
        warn!(component = "app", "the last save did not come to its end");
    }
    let stopped = tokio::task::spawn_blocking(move || driver.stop()).await;
    if let Ok(Some(userspace)) = stopped {
        tokio::select! {
            () = userspace.shutdown(SHUTDOWN_DRAIN) => {}
            () = hurry.cancelled() => {}
        }
    }
}

/// Takes the lock of the state folder, so that two daemons never fight for ports and maps. Where the folder can't be
/// written, the daemon runs all the same.
fn lock(config: &Config) -> Result<Option<File>, AppError> {
    let path = config.state_dir.join("lock");
    let opened = std::fs::create_dir_all(&config.state_dir).and_then(|()| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
    });
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            warn!(
                component = "app", path = %path.display(), %error,
                "the state folder can't be written: ports are not remembered over a restart"
            );
            return Ok(None);
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(AppError::Locked { path }),
        Err(std::fs::TryLockError::Error(error)) => {
            warn!(component = "app", path = %path.display(), %error, "the state folder can't be locked");
            Ok(None)
        }
    }
}

async fn load(file: &StateFile) -> Option<SavedState> {
    let reader = file.clone();
    match tokio::task::spawn_blocking(move || reader.load()).await {
        Ok(Loaded::State(state)) => {
            info!(
                component = "app", action = "restore", agents = state.agents.len(), path = %file.path().display(),
                "saved Services are served until their agents come back"
            );
            Some(*state)
        }
        Ok(Loaded::SetAside { kept, reason }) => {
            let kept = kept.map(|path| path.display().to_string());
            warn!(
                component = "app", path = %file.path().display(), kept, reason,
                "the state file can't be used and was set aside; Services come back when their agents connect, moved \
                 ones perhaps on other ports"
            );
            None
        }
        Ok(Loaded::Absent) => None,
        Err(error) => {
            warn!(component = "app", %error, "the state file could not be read");
            None
        }
    }
}

/// The host's network as it is at the start, so that restored Services are served at once.
async fn first_environment(config: &Config) -> Environment {
    match links::read(&LinkSettings::from(config)).await {
        Ok(environment) => environment,
        Err(error) => {
            warn!(component = "app", %error, "the host's network can't be read yet");
            let mut environment = Environment::default();
            environment.tunnel = net::environment::LinkState {
                name: config.wireguard_interface.clone(),
                ..net::environment::LinkState::default()
            };
            environment
        }
    }
}

fn zones(core: &mut Core, config: &Config) -> Result<ZonePair, AppError> {
    let mut zone = |name: &str| core.zone(name).ok_or_else(|| AppError::Zones(name.to_owned()));
    Ok(ZonePair {
        wan: zone(config.public_interface.as_deref().unwrap_or(DEFAULT_WAN))?,
        tunnel: zone(&config.wireguard_interface)?,
    })
}
