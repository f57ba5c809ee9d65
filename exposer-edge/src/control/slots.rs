//! Stable numbers for bindings: an index that names the counters, and a generation that tells old flows from new.

use std::collections::BTreeSet;

use exposer_common::names::SERVICE_SLOTS;

/// Hands out indexes below [`SERVICE_SLOTS`] and ever new generations.
///
/// Generations come from one counter for all indexes, so that an index that passes from one Service to another can
/// never meet a flow of its earlier owner with the same generation. After 2^32 changes the counter wraps; a flow that
/// is as old as that has long expired.
#[derive(Clone, Debug)]
pub struct Slots {
    used: BTreeSet<u32>,
    cursor: u32,
    generation: u32,
}

impl Slots {
    /// All indexes free; the first generation will be the one after `generation`.
    #[must_use]
    pub const fn new(generation: u32) -> Self {
        Self {
            used: BTreeSet::new(),
            cursor: 0,
            generation,
        }
    }

    /// The generation that was handed out last.
    #[must_use]
    pub const fn last_generation(&self) -> u32 {
        self.generation
    }

    /// Generations go on after `generation`, if that is further than here.
    pub fn go_on_from(&mut self, generation: u32) {
        self.generation = self.generation.max(generation);
    }

    /// A fresh generation, never 0.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// Takes exactly `index`, as a saved state says. Whether it was free.
    pub fn take(&mut self, index: u32) -> bool {
        index < SERVICE_SLOTS && self.used.insert(index)
    }

    /// Takes a free index, round robin, so that one that was just freed is not reused at once: its flows may still
    /// drain. None when all are in use.
    pub fn allocate(&mut self) -> Option<u32> {
        for _ in 0..SERVICE_SLOTS {
            let index = self.cursor;
            self.cursor = self
                .cursor
                .wrapping_add(1)
                .checked_rem(SERVICE_SLOTS)
                .unwrap_or(0);
            if self.used.insert(index) {
                return Some(index);
            }
        }
        None
    }

    /// Frees `index`.
    pub fn free(&mut self, index: u32) {
        self.used.remove(&index);
    }
}
