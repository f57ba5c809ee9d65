//! Puts the parts of a snapshot together, within limits.

use exposer_common::model::ServiceRecord;
use exposer_common::proto::message::{ErrorCode, ErrorMessage, Snapshot};

/// Most Services of one agent.
pub const MAX_SERVICES: usize = 16_384;
/// Most bytes of all parts of one snapshot.
pub const MAX_SNAPSHOT: usize = 32 << 20;

/// A snapshot that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its epoch.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
    /// All Services.
    pub services: Vec<ServiceRecord>,
}

/// A snapshot of which parts are still to come.
#[derive(Debug)]
pub struct Assembly {
    whole: Whole,
    next_part: u32,
    bytes: usize,
}

impl Assembly {
    /// Adds `part`, which took `bytes` on the wire, to what was `begun`; gives the whole back with the last part.
    ///
    /// # Errors
    ///
    /// What to tell the agent when the part does not follow, or the snapshot grows beyond the limits.
    pub fn add(
        begun: Option<Self>,
        part: Snapshot,
        bytes: usize,
    ) -> Result<Result<Whole, Self>, ErrorMessage> {
        let Snapshot {
            epoch,
            revision,
            part: number,
            last,
            services,
        } = part;
        let mut assembly = begun.unwrap_or(Self {
            whole: Whole {
                epoch,
                revision,
                services: Vec::new(),
            },
            next_part: 0,
            bytes: 0,
        });
        if (epoch, revision, number) != (assembly.whole.epoch, assembly.whole.revision, assembly.next_part) {
            return Err(ErrorMessage::new(
                ErrorCode::OutOfOrder,
                &format!(
                    "part {number} of snapshot {epoch:x}/{revision} came where part {} of {:x}/{} belongs",
                    assembly.next_part, assembly.whole.epoch, assembly.whole.revision
                ),
            ));
        }
        assembly.bytes = assembly.bytes.saturating_add(bytes);
        assembly.next_part = assembly.next_part.saturating_add(1);
        assembly.whole.services.extend(services);
        if assembly.whole.services.len() > MAX_SERVICES || assembly.bytes > MAX_SNAPSHOT {
            return Err(ErrorMessage::new(
                ErrorCode::Limit,
                &format!(
                    "one agent may have {MAX_SERVICES} Services and {} MiB of them; limit WATCH_NAMESPACES",
                    MAX_SNAPSHOT >> 20
                ),
            ));
        }
        Ok(if last { Ok(assembly.whole) } else { Err(assembly) })
    }
}
