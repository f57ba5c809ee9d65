//! Splitting of what is too large for one frame: snapshots, deltas and acknowledgements.
//!
//! A part holds at most [`PART_BYTES`] and at most [`PART_ITEMS`] elements. The second bound keeps a list of many small
//! elements inside the decoder's budget, which counts an element by its size in memory.

use bincode::Encode;

use super::MAX_FRAME;
use super::codec::{DECODE_BUDGET, encoded_len};
use super::error::PartsError;
use super::message::{Ack, Change, Delta, ServiceOutcome, Snapshot};
use crate::model::{ServiceId, ServiceRecord};

/// What the elements of one part may take on the wire, in bytes: a frame without its largest possible header.
pub const PART_BYTES: usize = MAX_FRAME as usize - 64;
/// Most elements of one part.
pub const PART_ITEMS: usize = 4_096;

const _: () = {
    assert!(PART_ITEMS * size_of::<Change>() + MAX_FRAME as usize <= DECODE_BUDGET);
    assert!(PART_ITEMS * size_of::<ServiceRecord>() + MAX_FRAME as usize <= DECODE_BUDGET);
    assert!(PART_ITEMS * size_of::<ServiceOutcome>() + MAX_FRAME as usize <= DECODE_BUDGET);
};

/// The snapshot as messages that fit into a frame each, at least one, the last marked as such.
///
/// # Errors
///
/// When a single record does not fit into a frame; the error names it.
pub fn snapshot_parts(
    epoch: u64,
    revision: u64,
    services: impl IntoIterator<Item = ServiceRecord>,
) -> Result<Vec<Snapshot>, PartsError> {
    let groups = split(services, |record| &record.id)?;
    let last = groups.len().saturating_sub(1);
    Ok(groups
        .into_iter()
        .enumerate()
        .map(|(index, services)| Snapshot {
            epoch,
            revision,
            part: u32::try_from(index).unwrap_or(u32::MAX),
            last: index == last,
            services,
        })
        .collect())
}

/// The changes as deltas that fit into a frame each, with rising revisions from `first_revision`; none for no change.
///
/// # Errors
///
/// When a single change does not fit into a frame; the error names its Service.
pub fn delta_parts(
    epoch: u64,
    first_revision: u64,
    changes: impl IntoIterator<Item = Change>,
) -> Result<Vec<Delta>, PartsError> {
    Ok(split(changes, Change::id)?
        .into_iter()
        .filter(|changes| !changes.is_empty())
        .zip(first_revision..)
        .map(|(changes, revision)| Delta {
            epoch,
            revision,
            changes,
        })
        .collect())
}

/// The outcomes as acknowledgements of the same revision that fit into a frame each, at least one.
///
/// # Errors
///
/// When a single outcome does not fit into a frame; the error names its Service.
pub fn ack_parts(
    epoch: u64,
    revision: u64,
    outcomes: impl IntoIterator<Item = ServiceOutcome>,
) -> Result<Vec<Ack>, PartsError> {
    Ok(split(outcomes, |outcome| &outcome.id)?
        .into_iter()
        .map(|outcomes| Ack {
            epoch,
            revision,
            outcomes,
        })
        .collect())
}

impl Change {
    /// The Service that changes.
    #[must_use]
    pub const fn id(&self) -> &ServiceId {
        match self {
            Self::Update(record) => &record.id,
            Self::Delete(id) => id,
        }
    }
}

/// Groups of at most [`PART_BYTES`] and [`PART_ITEMS`], in order; one empty group for nothing.
fn split<T: Encode>(
    items: impl IntoIterator<Item = T>,
    id: impl Fn(&T) -> &ServiceId,
) -> Result<Vec<Vec<T>>, PartsError> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut used = 0_usize;
    for item in items {
        let length = encoded_len(&item).map_err(|error| PartsError::Encode {
            id: id(&item).clone(),
            cause: error.to_string(),
        })?;
        if length > PART_BYTES {
            return Err(PartsError::TooLarge {
                id: id(&item).clone(),
                length,
                limit: PART_BYTES,
            });
        }
        if used.saturating_add(length) > PART_BYTES || group.len() >= PART_ITEMS {
            groups.push(std::mem::take(&mut group));
            used = 0;
        }
        used = used.saturating_add(length);
        group.push(item);
    }
    groups.push(group);
    Ok(groups)
}
