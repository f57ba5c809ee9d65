//! Expiry: a thread of its own reads the flow table in batches and deletes what is over.
//!
//! A flow is looked at by its forward entry alone first; only where that has been silent for longer than the shortest
//! timeout is the reply entry looked up. Before anything is deleted both are read again. Reply goes before forward,
//! so that the SNAT port is never free while packets still leave with it.
//!
//! One race remains: a packet may pass between the second reading and the deletion. The flow was silent for its whole
//! timeout at that point; the worst is that a packet which came in that very microsecond had its flow forgotten. A
//! UDP client's next datagram makes it anew on the same SNAT port; a TCP peer that wakes after more than two hours is
//! answered with RST, as if it had come a microsecond later.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use exposer_common::flow::{FlowEntry, FlowKey};
use exposer_common::net::nat::opposite_key;
use exposer_common::net::state::{UNREPLIED, expired};
use exposer_common::service::L4Proto;

use super::maps::FlowMaps;
use super::table;
use crate::datapath::DatapathError;

/// How often the table is swept.
const INTERVAL: Duration = Duration::from_secs(10);
/// Every so many sweeps the reply entries are searched for orphans.
const ORPHANS_EVERY: u32 = 6;

/// Idle timeouts in nanoseconds of services that have their own, by index.
pub type IdleTimeouts = Arc<RwLock<HashMap<u32, u64>>>;

/// Flows that are to end before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The binding's index.
    pub service: u32,
    /// Flows of this protocol.
    pub protocol: L4Proto,
    /// Flows of generations up to this one.
    pub generation: u32,
}

enum Order {
    Cut(Cut),
    Stop,
}

/// Flows that were alive at a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// All of them.
    pub total: u64,
    /// Of each binding, by index.
    pub by_service: HashMap<u32, u64>,
}

impl Live {
    fn count(&mut self, service: u32) {
        self.total = self.total.saturating_add(1);
        let count = self.by_service.entry(service).or_default();
        *count = count.saturating_add(1);
    }
}

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that are left.
    pub live: Live,
    /// Flows that were over.
    pub expired: u64,
    /// Flows that were ended before their time.
    pub cut: u64,
    /// Reply entries without a forward entry.
    pub orphans: u64,
}

/// Handle of the sweeping thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Sweeper {
    orders: Sender<Order>,
    thread: Option<std::thread::JoinHandle<()>>,
    live: Arc<Mutex<Arc<Live>>>,
}

impl Sweeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(maps: FlowMaps, timeouts: IdleTimeouts) -> Result<Self, DatapathError> {
        let (orders, inbox) = channel();
        let live = Arc::new(Mutex::new(Arc::default()));
        let publish = Arc::clone(&live);
        let thread = std::thread::Builder::new()
            .name("flow-sweep".to_owned())
            .spawn(move || run(maps, &timeouts, &inbox, &publish))
            .map_err(|source| DatapathError::System {
                action: "starting the sweep thread".to_owned(),
                source,
            })?;
        Ok(Self {
            orders,
            thread: Some(thread),
            live,
        })
    }

    /// Ends flows before their time, soon.
    pub fn cut(&self, cut: Cut) {
        // The thread ends only when this handle does.
        let _ = self.orders.send(Order::Cut(cut));
    }

    /// Flows that were alive at the last sweep.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut maps: FlowMaps, timeouts: &IdleTimeouts, inbox: &Receiver<Order>, live: &Mutex<Arc<Live>>) {
    let mut rounds = 0_u32;
    loop {
        let mut cuts = Vec::new();
        match inbox.recv_timeout(INTERVAL) {
            Ok(Order::Cut(cut)) => cuts.push(cut),
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // One pass over the table does for all that was ordered meanwhile.
        while let Ok(order) = inbox.try_recv() {
            match order {
                Order::Cut(cut) => cuts.push(cut),
                Order::Stop => return,
            }
        }
        let orphans = rounds.is_multiple_of(ORPHANS_EVERY);
        rounds = rounds.wrapping_add(1);
        let timeouts = timeouts.read().unwrap_or_else(PoisonError::into_inner).clone();
        let swept = super::now().and_then(|now| sweep(&mut maps, &timeouts, &cuts, orphans, now));
        match swept {
            Ok(swept) => {
                tracing::trace!(component = "kernel", action = "sweep", ?swept);
                *live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(swept.live);
            }
            Err(error) => {
                tracing::warn!(component = "kernel", action = "sweep", %error, "sweeping the flow table failed");
            }
        }
    }
}

/// One pass over the table at the time `now` ([`super::clock::now`]).
///
/// # Errors
///
/// What the system said; what was done before it stands.
pub fn sweep(
    maps: &mut FlowMaps,
    timeouts: &HashMap<u32, u64>,
    cuts: &[Cut],
    orphans: bool,
    now: u64,
) -> Result<Swept, DatapathError> {
    let mut swept = Swept::default();
    for (key, seen) in table::entries(&maps.flows)? {
        let Some(protocol) = L4Proto::from_number(key.proto) else {
            continue;
        };
        let is_cut = cuts.iter().any(|cut| {
            cut.service == seen.service && cut.protocol == protocol && seen.generation <= cut.generation
        });
        if is_cut {
            delete(maps, &key, &seen)?;
            swept.cut = swept.cut.saturating_add(1);
        } else if now.saturating_sub(seen.seen) > UNREPLIED
            && is_over(maps, &key, protocol, now, timeouts.get(&seen.service).copied())?
        {
            delete(maps, &key, &seen)?;
            swept.expired = swept.expired.saturating_add(1);
        } else {
            swept.live.count(seen.service);
        }
    }
    if orphans {
        swept.orphans = sweep_orphans(maps, now)?;
    }
    Ok(swept)
}

/// Reads both entries afresh and judges them.
fn is_over(
    maps: &FlowMaps,
    key: &FlowKey,
    protocol: L4Proto,
    now: u64,
    timeout: Option<u64>,
) -> Result<bool, DatapathError> {
    let Some(forward) = table::get(&maps.flows, key)? else {
        return Ok(false);
    };
    let reply = table::get(&maps.replies, &opposite_key(&forward, key.proto))?;
    let reply = reply.unwrap_or(FlowEntry {
        tcp_flags: 0,
        packets: 0,
        seen: 0,
        ..forward
    });
    Ok(expired(protocol, &forward, &reply, now, timeout))
}

fn delete(maps: &mut FlowMaps, key: &FlowKey, forward: &FlowEntry) -> Result<(), DatapathError> {
    table::delete(&mut maps.replies, &opposite_key(forward, key.proto))?;
    table::delete(&mut maps.flows, key)
}

/// Reply entries whose forward entry is gone: left behind by a crash between two deletions, or by a program that lost
/// a race. Fresh ones are left alone, because a program enters the reply first.
fn sweep_orphans(maps: &mut FlowMaps, now: u64) -> Result<u64, DatapathError> {
    let mut orphans = 0_u64;
    for (key, reply) in table::entries(&maps.replies)? {
        let fresh = now.saturating_sub(reply.seen.max(reply.created)) <= UNREPLIED;
        if fresh {
            continue;
        }
        let owner = table::get(&maps.flows, &opposite_key(&reply, key.proto))?;
        // A forward entry that leaves by another SNAT port belongs to another mapping of the same client.
        if owner.is_none_or(|forward| opposite_key(&forward, key.proto) != key) {
            table::delete(&mut maps.replies, &key)?;
            orphans = orphans.saturating_add(1);
        }
    }
    Ok(orphans)
}
