//! What was already said, so that nothing is said twice. Pure.

use std::collections::{BTreeMap, BTreeSet};

use exposer_common::model::ServiceId;
use k8s_openapi::jiff::Timestamp;

use super::notice::Notice;
use super::status::Condition;

/// What one Service was told.
#[derive(Debug, Default)]
struct Entry {
    uid: String,
    notices: BTreeSet<Notice>,
    condition: Option<(Condition, Timestamp)>,
}

/// What every Service was told. It lives as long as the agent: after a restart all that still holds is said once more.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<ServiceId, Entry>,
}

impl Ledger {
    /// Of what holds for a Service now, that which it was not told. What holds no longer is forgotten, so that it is
    /// told again should it come back.
    pub fn fresh(&mut self, id: &ServiceId, uid: &str, current: &[Notice]) -> Vec<Notice> {
        let entry = self.entries.entry(id.clone()).or_default();
        if entry.uid != uid {
            *entry = Entry {
                uid: uid.to_owned(),
                ..Entry::default()
            };
        }
        entry.notices.retain(|notice| current.contains(notice));
        current
            .iter()
            .filter(|notice| !entry.notices.contains(notice))
            .cloned()
            .collect()
    }

    /// Notes that a Service was told.
    pub fn said(&mut self, id: &ServiceId, notice: Notice) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.notices.insert(notice);
        }
    }

    /// The condition that was last written to a Service's status, and since when it holds.
    #[must_use]
    pub fn condition(&self, id: &ServiceId) -> Option<&(Condition, Timestamp)> {
        self.entries.get(id)?.condition.as_ref()
    }

    /// Notes the condition that was written.
    pub fn written(&mut self, id: &ServiceId, condition: Condition, since: Timestamp) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.condition = Some((condition, since));
        }
    }

    /// Forgets a Service.
    pub fn forget(&mut self, id: &ServiceId) {
        self.entries.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::notice::Weight;

    fn notice(note: &str) -> Notice {
        Notice {
            weight: Weight::Warning,
            reason: "InvalidAnnotation",
            note: note.to_owned(),
        }
    }

    /// Says everything that is fresh, and gives the notes.
    fn tell(ledger: &mut Ledger, uid: &str, current: &[Notice]) -> Vec<String> {
        let id = ServiceId {
            namespace: "a".into(),
            name: "b".into(),
        };
        let fresh = ledger.fresh(&id, uid, current);
        for notice in &fresh {
            ledger.said(&id, notice.clone());
        }
        fresh.into_iter().map(|notice| notice.note).collect()
    }

    #[test]
    fn nothing_is_said_twice_until_it_was_mended() {
        let mut ledger = Ledger::default();
        assert_eq!(tell(&mut ledger, "1", &[notice("x")]), ["x"]);
        assert!(tell(&mut ledger, "1", &[notice("x")]).is_empty());
        assert_eq!(tell(&mut ledger, "1", &[notice("x"), notice("y")]), ["y"]);
        assert!(tell(&mut ledger, "1", &[]).is_empty());
        assert_eq!(tell(&mut ledger, "1", &[notice("x")]), ["x"]);
    }

    #[test]
    fn a_service_made_anew_is_another_one() {
        let mut ledger = Ledger::default();
        assert_eq!(tell(&mut ledger, "1", &[notice("x")]), ["x"]);
        assert_eq!(tell(&mut ledger, "2", &[notice("x")]), ["x"]);
    }

    #[test]
    fn what_could_not_be_said_stays_fresh() {
        let mut ledger = Ledger::default();
        let id = ServiceId {
            namespace: "a".into(),
            name: "b".into(),
        };
        assert_eq!(ledger.fresh(&id, "1", &[notice("x")]).len(), 1);
        assert_eq!(ledger.fresh(&id, "1", &[notice("x")]).len(), 1);
    }
}
