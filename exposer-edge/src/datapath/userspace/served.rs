//! What the listeners, connections and sessions of one binding share.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::{Limits, ServiceLoad};
use super::settings::UserspaceSettings;
use super::stats::Counters;
use super::tcp::splice::PipePool;
use super::tunnel::Tunnel;
use crate::datapath::{Binding, BindingKey};

/// What all bindings share.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub settings: UserspaceSettings,
    /// Caps per Service and per source.
    pub limits: Arc<Limits>,
    /// Where dials go out.
    pub tunnel: Tunnel,
    /// Pipes for zero copy, shared by all connections.
    pub pipes: PipePool,
    /// Every connection and session, for a shutdown that waits for them.
    pub tasks: TaskTracker,
    /// Cancelled when the datapath is dropped.
    pub over: CancellationToken,
}

/// Where connections go, from one change of the target to the next. A connection keeps the route that it began with.
#[derive(Debug)]
pub struct Route {
    /// The binding as it was given.
    pub binding: Binding,
    /// Cancelled when what goes by this route is to end: TCP at the end of the drain, UDP at once.
    pub over: CancellationToken,
}

/// One binding, as its listeners see it.
#[derive(Debug)]
pub struct Served {
    /// The public port.
    pub key: BindingKey,
    /// What all bindings share.
    pub context: Arc<Context>,
    /// What is counted.
    pub counters: Counters,
    /// How much of the Service's cap is used.
    pub load: Arc<ServiceLoad>,
    route: RwLock<Arc<Route>>,
}

impl Served {
    /// Serves `binding` from here on.
    #[must_use]
    pub fn new(context: Arc<Context>, binding: &Binding) -> Self {
        let route = RwLock::new(Arc::new(Route {
            binding: binding.clone(),
            over: context.over.child_token(),
        }));
        Self {
            key: binding.key,
            load: context.limits.load_of(&binding.service, binding.key.protocol),
            counters: Counters::default(),
            context,
            route,
        }
    }

    /// Where a connection goes that begins at this moment.
    #[must_use]
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over a changed binding. Returns the route before it if what goes by that is to end: when the target
    /// changed. A change of anything else holds for what begins from here on.
    pub fn change(&self, binding: &Binding) -> Option<Arc<Route>> {
        let before = self.route();
        if before.binding == *binding {
            return None;
        }
        let moved =
            before.binding.backend != binding.backend || before.binding.generation != binding.generation;
        let over = if moved {
            self.context.over.child_token()
        } else {
            before.over.clone()
        };
        let after = Arc::new(Route {
            binding: binding.clone(),
            over,
        });
        *self.route.write().unwrap_or_else(PoisonError::into_inner) = after;
        moved.then_some(before)
    }
}

impl Route {
    /// Ends what goes by this route after `drain`. Must be called within a runtime.
    pub fn end_after(&self, drain: Duration) {
        if drain.is_zero() {
            self.over.cancel();
            return;
        }
        let over = self.over.clone();
        drop(tokio::spawn(async move {
            let drained = tokio::time::sleep(drain);
            tokio::select! {
                () = drained => over.cancel(),
                () = over.cancelled() => {}
            }
        }));
    }
}
