//! What keeps the daemon from doing its job: guards, not flags. Ready when every guard is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Blocks {
    next: u64,
    reasons: BTreeMap<u64, String>,
}

/// Gives out guards and knows which are alive. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Blocks>>);

/// While this lives, the daemon is not ready.
#[derive(Debug)]
pub struct Block {
    readiness: Readiness,
    number: u64,
}

impl Readiness {
    /// Nothing stands in the way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the daemon not ready, for `reason` (one sentence for the operator), until the guard is dropped.
    #[must_use = "the guard blocks only while it lives"]
    pub fn block(&self, reason: impl Into<String>) -> Block {
        let mut blocks = self.lock();
        let number = blocks.next;
        blocks.next = blocks.next.wrapping_add(1);
        blocks.reasons.insert(number, reason.into());
        drop(blocks);
        Block {
            readiness: self.clone(),
            number,
        }
    }

    /// Every reason, oldest first; empty = ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.lock().reasons.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // Every change under the lock is one step: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.readiness.lock().reasons.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.reasons().is_empty());
        let tunnel = readiness.block("wg0 is missing");
        let state = readiness.block("Services are being restored");
        assert_eq!(
            readiness.reasons(),
            ["wg0 is missing", "Services are being restored"]
        );
        drop(tunnel);
        assert_eq!(readiness.clone().reasons(), ["Services are being restored"]);
        drop(state);
        assert!(readiness.reasons().is_empty());
    }
}
