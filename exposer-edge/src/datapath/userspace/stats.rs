//! Counters of one binding.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::datapath::BindingStats;

/// Why a connection or session failed: the index of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend refused.
    Refused,
    /// No backend answered in time, or the tunnel was down.
    Timeout,
    /// The Service has all the connections it may have.
    ServiceCap,
    /// The source has all the connections it may have.
    SourceCap,
    /// The system refused a socket or another resource.
    System,
}

/// What [`BindingStats::failed`] is made of, and what UDP lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UserspaceStats {
    /// Backends that refused.
    pub refused: u64,
    /// Backends that did not answer in time, or a tunnel that was down.
    pub timeouts: u64,
    /// Connections and sessions over the cap of the Service.
    pub over_service_cap: u64,
    /// Connections and sessions over the cap of their source.
    pub over_source_cap: u64,
    /// Descriptors or memory that the system refused.
    pub system: u64,
    /// Datagrams that found no session or a full socket buffer.
    pub dropped_datagrams: u64,
}

/// Number of kinds of [`Failure`].
const FAILURES: usize = 5;

/// What is counted for one binding. Each number only rises, except `active`.
#[derive(Debug, Default)]
pub struct Counters {
    flows: AtomicU64,
    active: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped: AtomicU64,
    failures: [AtomicU64; FAILURES],
}

/// A direction of traffic, seen from the public side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    In,
    /// From the backend to the client.
    Out,
}

impl Counters {
    /// A connection or session was made; it counts as active until [`Counters::end`].
    pub fn begin(&self) {
        self.flows.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
    }

    /// A connection or session is over.
    pub fn end(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    /// `bytes` went on in `direction`, in `packets` datagrams (0 for TCP, which has none).
    pub fn carried(&self, direction: Direction, packets: u64, bytes: u64) {
        let (packet_counter, byte_counter) = match direction {
            Direction::In => (&self.packets_in, &self.bytes_in),
            Direction::Out => (&self.packets_out, &self.bytes_out),
        };
        if packets > 0 {
            packet_counter.fetch_add(packets, Relaxed);
        }
        byte_counter.fetch_add(bytes, Relaxed);
    }

    /// Datagrams that a full buffer or an error cost.
    pub fn dropped(&self, datagrams: u64) {
        self.dropped.fetch_add(datagrams, Relaxed);
    }

    /// A connection or session failed.
    pub fn failed(&self, failure: Failure) {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The kinds of failures apart.
    #[must_use]
    pub fn detail(&self) -> UserspaceStats {
        let count = |failure: Failure| {
            let counter = self.failures.get(failure as usize);
            counter.map_or(0, |counter| counter.load(Relaxed))
        };
        UserspaceStats {
            refused: count(Failure::Refused),
            timeouts: count(Failure::Timeout),
            over_service_cap: count(Failure::ServiceCap),
            over_source_cap: count(Failure::SourceCap),
            system: count(Failure::System),
            dropped_datagrams: self.dropped.load(Relaxed),
        }
    }

    /// The numbers as the trait wants them.
    #[must_use]
    pub fn snapshot(&self) -> BindingStats {
        BindingStats {
            flows: self.flows.load(Relaxed),
            active: self.active.load(Relaxed),
            packets_in: self.packets_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            packets_out: self.packets_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            failed: self
                .failures
                .iter()
                .fold(0, |sum: u64, counter| sum.saturating_add(counter.load(Relaxed))),
        }
    }
}
