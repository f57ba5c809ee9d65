//! What goes into a session at its start, and what comes out of it.

use std::net::IpAddr;
use std::time::Duration;

use exposer_common::proto::message::ServiceOutcome;

use super::ending::Ending;
use super::sync::Disagreement;

/// What a session needs to know of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agent's name, a DNS label.
    pub agent: String,
    /// How often the edge's picture is compared with ours.
    pub sync_interval: Duration,
}

/// What a session wants from its owner, in order.
#[derive(Debug)]
pub enum Event {
    /// Write these bytes.
    Send(Vec<u8>),
    /// The edge has proven itself.
    Welcomed {
        /// What it says of its software, printable.
        software: String,
        /// Where names should point to.
        public_addresses: Vec<IpAddr>,
    },
    /// What the edge made of Services.
    Outcomes(Vec<ServiceOutcome>),
    /// The edge has acknowledged everything that is wanted, up to this revision.
    Settled {
        /// The revision.
        revision: u64,
        /// How many Services that are.
        services: usize,
    },
    /// The edge lives, but takes long to acknowledge; said once for each revision that is the oldest.
    Slow {
        /// The revision.
        revision: u64,
        /// How long it has waited.
        waited: Duration,
    },
    /// The edge's picture is not ours; a snapshot follows.
    Disagreed(Disagreement),
    /// Close the connection; it is the last event.
    Close(Ending),
}
