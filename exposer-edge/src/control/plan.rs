//! The difference between what is to be and what the datapath was told, as a value that can be printed.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::programming::Programming;
use super::registry::Registry;
use crate::datapath::{Binding, BindingKey};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// Serve a port no more.
    Remove(BindingKey),
    /// Serve a port so.
    Upsert(Binding),
}

/// Steps that lead from what was told to what is to be: removals first, each group in the order of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are taken.
    pub steps: Vec<PlanStep>,
}

impl Plan {
    /// The steps that `keys` need.
    #[must_use]
    pub fn for_keys(registry: &Registry, programming: &Programming, keys: &BTreeSet<BindingKey>) -> Self {
        let (mut removals, mut upserts) = (Vec::new(), Vec::new());
        for key in keys {
            let told = programming.told(*key);
            match registry.binding(*key) {
                Some(binding) if Some(&binding) != told => upserts.push(PlanStep::Upsert(binding)),
                None if told.is_some() => removals.push(PlanStep::Remove(*key)),
                _ => {}
            }
        }
        removals.append(&mut upserts);
        Self { steps: removals }
    }

    /// The steps that anything needs.
    #[must_use]
    pub fn whole(registry: &Registry, programming: &Programming) -> Self {
        let keys = registry
            .bindings()
            .map(|binding| binding.key)
            .chain(programming.slots().map(|(key, _)| *key))
            .collect();
        Self::for_keys(registry, programming, &keys)
    }

    /// Whether everything is as it is to be.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(key) => write!(f, "- {key}"),
            Self::Upsert(binding) => write!(
                f,
                "+ {} -> {} ({})",
                binding.key, binding.backend, binding.service
            ),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl Serialize for PlanStep {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.steps)
    }
}
