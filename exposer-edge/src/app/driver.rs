//! The thread that drives the datapaths: steps in, results out, and the tick of once a second.
//!
//! It stands apart from the core's task so that a long sweep of the flow table holds up no heartbeat and no
//! acknowledgement of an agent.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::control::programming::{Failure, Report, Step};
use crate::datapath::accelerator::{Accelerator, Fallback};
use crate::datapath::combined::{Combined, PathChange};
use crate::datapath::{Binding, BindingKey, BindingStats, Removal};
use crate::net::environment::Environment;

/// How often the datapaths do their periodic work.
const TICK: Duration = Duration::from_secs(1);

/// What the driver is to do, in order.
#[derive(Debug)]
pub enum Job {
    /// Serve a port.
    Upsert(Step, Binding, Removal),
    /// Serve a port no more.
    Remove(Step, BindingKey, Removal),
    /// Take over a changed network.
    Environment(Box<Environment>),
    /// Report counters.
    Observe,
    /// End the thread.
    Stop,
}

/// What the driver tells.
#[derive(Debug)]
pub enum News<O> {
    /// A step is done.
    Done(BindingKey, Step, Report),
    /// A port is served by another path than before.
    Path(PathChange),
    /// Counters by port, and what else was observed.
    Observed(BTreeMap<BindingKey, BindingStats>, Box<O>),
}

/// The running thread. `U` is given back at the end.
#[derive(Debug)]
pub struct Driver<U> {
    jobs: Sender<Job>,
    thread: JoinHandle<U>,
}

impl<U: Fallback + 'static> Driver<U> {
    /// Starts the thread. `observe` looks at whatever the status wants of the kernel path.
    ///
    /// # Errors
    ///
    /// When the system has no room for a thread.
    pub fn start<K: Accelerator + 'static, O: Send + 'static>(
        combined: Combined<U, K>,
        observe: impl Fn(&Combined<U, K>) -> O + Send + 'static,
        news: mpsc::UnboundedSender<News<O>>,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new()
            .name("datapath".into())
            .spawn(move || {
                let _runtime = runtime.enter();
                drive(combined, &observe, &queue, &news)
            })?;
        Ok(Self { jobs, thread })
    }

    /// Hands in a job. One that comes after the end is lost.
    pub fn hand_in(&self, job: Job) {
        let _ended = self.jobs.send(job);
    }

    /// Whether the thread has ended: it does so only on demand, or by a bug.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread after all jobs before, and gives the userspace path back; none if the thread died.
    #[must_use]
    pub fn stop(self) -> Option<U> {
        self.hand_in(Job::Stop);
        self.thread.join().ok()
    }
}

fn drive<U: Fallback, K: Accelerator, O>(
    mut combined: Combined<U, K>,
    observe: &impl Fn(&Combined<U, K>) -> O,
    queue: &Receiver<Job>,
    news: &mpsc::UnboundedSender<News<O>>,
) -> U {
    let mut next_tick = Instant::now();
    loop {
        let wait = next_tick.saturating_duration_since(Instant::now());
        let job = if wait.is_zero() {
            Err(RecvTimeoutError::Timeout)
        } else {
            queue.recv_timeout(wait)
        };
        let told = match job {
            Err(RecvTimeoutError::Timeout) => {
                next_tick = Instant::now().checked_add(TICK).unwrap_or(next_tick);
                combined.tick().into_iter().map(News::Path).collect()
            }
            Ok(Job::Upsert(step, binding, removal)) => {
                let report = match combined.serve(&binding, removal) {
                    Ok(served) => Report::Served(served),
                    Err(error) => Report::Failed(Failure::from(&error)),
                };
                vec![News::Done(binding.key, step, report)]
            }
            Ok(Job::Remove(step, key, removal)) => {
                let report = match combined.remove(key, removal) {
                    Ok(()) => Report::Removed,
                    Err(error) => Report::Failed(Failure::from(&error)),
                };
                vec![News::Done(key, step, report)]
            }
            Ok(Job::Environment(environment)) => combined
                .set_environment(&environment)
                .into_iter()
                .map(News::Path)
                .collect(),
            Ok(Job::Observe) => vec![News::Observed(combined.all_stats(), Box::new(observe(&combined)))],
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return combined.into_userspace(),
        };
        for item in told {
            if news.send(item).is_err() {
                return combined.into_userspace();
            }
        }
    }
}
