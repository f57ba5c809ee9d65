//! The handle of a server: start, stop, start again.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{oneshot, watch};

use super::{Shared, http, lock};

#[derive(Debug)]
struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Handle of a running server; dropping it stops the server.
#[derive(Debug)]
pub struct KubeApi {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
    server: Mutex<Option<Server>>,
}

impl KubeApi {
    /// Serves an empty cluster on `listener`, which may have been bound inside another network namespace.
    ///
    /// # Errors
    ///
    /// Where the listener can't be used or the thread not be started.
    pub fn start(listener: TcpListener) -> anyhow::Result<Self> {
        let api = Self {
            shared: Arc::new(Shared {
                store: Mutex::default(),
                access: Mutex::default(),
                requests: Mutex::default(),
                bookmarks: Mutex::new(Duration::from_secs(10)),
                watch_limit: Mutex::new(Duration::from_secs(86_400)),
                gone_at_once: AtomicBool::new(false),
                writes: watch::Sender::new(0),
                drops: watch::Sender::new(0),
            }),
            address: listener.local_addr().context("asking the listener's address")?,
            server: Mutex::default(),
        };
        api.resume_on(listener)?;
        Ok(api)
    }

    /// Serves an empty cluster on a free port of the loopback address.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_on_loopback() -> anyhow::Result<Self> {
        Self::start(TcpListener::bind(("127.0.0.1", 0)).context("binding a loopback port")?)
    }

    /// Where the server listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for this server.
    #[must_use]
    pub fn kubeconfig_yaml(&self) -> String {
        let address = self.address;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: exposer\nclusters:\n- name: exposer\n  cluster:\n    \
             server: http://{address}\ncontexts:\n- name: exposer\n  context:\n    cluster: exposer\n    \
             user: exposer\n    namespace: default\nusers:\n- name: exposer\n  user:\n    token: exposer\n"
        )
    }

    /// Closes the listener and every connection; the data stays.
    ///
    /// # Errors
    ///
    /// Where the server thread had panicked.
    pub fn stop(&self) -> anyhow::Result<()> {
        let Some(Server { stop, thread }) = lock(&self.server).take() else {
            return Ok(());
        };
        // The receiver is gone only where the thread has ended by itself; joining tells how.
        let _ = stop.send(());
        if thread.join().is_err() {
            bail!("the thread of the API server panicked");
        }
        Ok(())
    }

    /// Serves again on the same address, in the caller's network namespace, with the data as it is.
    ///
    /// # Errors
    ///
    /// Where the address can't be bound again.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.stop()?;
        let listener =
            TcpListener::bind(self.address).with_context(|| format!("binding {} again", self.address))?;
        self.resume_on(listener)
    }

    /// Serves on another listener of the same address, after [`Self::stop`].
    ///
    /// # Errors
    ///
    /// Where the server still runs, or the listener can't be used.
    pub fn resume_on(&self, listener: TcpListener) -> anyhow::Result<()> {
        let mut server = lock(&self.server);
        if server.is_some() {
            bail!("the API server runs already");
        }
        listener
            .set_nonblocking(true)
            .context("making the listener non-blocking")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making the API server's runtime")?;
        let (stop, stopped) = oneshot::channel();
        let router = http::router(Arc::clone(&self.shared));
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                served = axum::serve(listener, router) => served,
                _ = stopped => Ok(()),
            }
        };
        let thread = std::thread::Builder::new()
            .name("kube-api".to_owned())
            .spawn(move || {
                // The listener is known to be good; an end by itself is seen by the clients as a refused connection.
                // Dropping the runtime closes every connection that is left.
                let _ = runtime.block_on(serve);
            })
            .context("starting the API server's thread")?;
        *server = Some(Server { stop, thread });
        Ok(())
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        // A panic of the server thread has been printed by itself.
        let _ = self.stop();
    }
}
