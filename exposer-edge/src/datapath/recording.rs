//! A datapath that carries nothing: it records what it is told and fails where it is told to. For tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal};
use crate::net::environment::Environment;

/// One call, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Datapath::upsert`].
    Upsert(Binding),
    /// [`Datapath::remove`].
    Remove(BindingKey),
    /// [`Datapath::set_environment`].
    Environment(Box<Environment>),
}

/// Makes one error, for a binding.
pub type MakeError = Box<dyn Fn(BindingKey) -> DatapathError + Send>;

#[derive(Default)]
struct Record {
    calls: Vec<Call>,
    served: BTreeMap<BindingKey, Binding>,
    failures: BTreeMap<BindingKey, VecDeque<MakeError>>,
}

/// See the [module](self). Clones share one record, so that a test keeps one and gives the other away.
#[derive(Clone, Default)]
pub struct RecordingDatapath {
    record: Arc<Mutex<Record>>,
}

impl RecordingDatapath {
    /// One that was told nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.with(|record| record.calls.clone())
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.with(|record| record.calls.clear());
    }

    /// What is served at present.
    #[must_use]
    pub fn served(&self) -> BTreeMap<BindingKey, Binding> {
        self.with(|record| record.served.clone())
    }

    /// Lets the next call for `key` fail with what `error` makes. Several wait for one another.
    pub fn fail_next(&self, key: BindingKey, error: MakeError) {
        self.with(|record| record.failures.entry(key).or_default().push_back(error));
    }

    fn with<T>(&self, action: impl FnOnce(&mut Record) -> T) -> T {
        // A test that panicked while it held the lock has left a whole record behind.
        action(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn call(&self, key: BindingKey, call: Call) -> Result<(), DatapathError> {
        self.with(|record| {
            record.calls.push(call.clone());
            if let Some(error) = record.failures.get_mut(&key).and_then(VecDeque::pop_front) {
                return Err(error(key));
            }
            match call {
                Call::Upsert(binding) => {
                    record.served.insert(key, binding);
                }
                Call::Remove(key) => {
                    record.served.remove(&key);
                }
                Call::Environment(_) => {}
            }
            Ok(())
        })
    }
}

impl Datapath for RecordingDatapath {
    fn upsert(&mut self, binding: &Binding, _removal: Removal) -> Result<(), DatapathError> {
        self.call(binding.key, Call::Upsert(binding.clone()))
    }

    fn remove(&mut self, key: BindingKey, _removal: Removal) -> Result<(), DatapathError> {
        self.call(key, Call::Remove(key))
    }

    fn set_environment(&mut self, environment: &Environment) -> Result<(), DatapathError> {
        self.with(|record| {
            record
                .calls
                .push(Call::Environment(Box::new(environment.clone())));
        });
        Ok(())
    }

    fn tick(&mut self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn stats(&self, key: BindingKey) -> Option<BindingStats> {
        self.with(|record| record.served.contains_key(&key).then(BindingStats::default))
    }
}
