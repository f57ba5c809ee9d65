//! Tells the owners of Services what became of them: Events, and the status condition where that is allowed.
//!
//! A task of its own, so that a slow API server never holds the watches up. Everything that still holds is reported
//! again with every resync; what was said before is not said again ([`Ledger`]), and what failed is thereby retried.

use std::time::Duration;

use ::kube::runtime::events::{Event, EventType, Recorder, Reporter as Source};
use ::kube::{Client, Error};
use exposer_common::model::ServiceId;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::ledger::Ledger;
use super::notice::{Notice, Weight};
use super::status::{self, Condition};

/// Name under which the Events appear.
const CONTROLLER: &str = "exposer-agent";
/// Longest note of an Event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1024;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after the API server refused or failed; a refusal of RBAC needs a person, so it is asked rarely.
const PAUSE_REFUSED: Duration = Duration::from_secs(300);
const PAUSE_FAILED: Duration = Duration::from_secs(20);

/// What holds for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It is annotated.
    Holds {
        /// Which Service.
        id: ServiceId,
        /// Its uid.
        uid: String,
        /// Everything there is to tell.
        notices: Vec<Notice>,
        /// What its status should say, if anything.
        condition: Option<Condition>,
    },
    /// It is deleted, or annotated no longer.
    Gone(ServiceId),
    /// Its status says what holds no more.
    Stale(ServiceId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Done,
    Refused,
    Failed,
}

struct Reporter {
    client: Client,
    prefix: String,
    ledger: Ledger,
    events_from: Instant,
    status_from: Instant,
    told: bool,
    status_told: bool,
}

/// Publishes what arrives on `reports` until the channel closes.
pub async fn publish(client: Client, prefix: String, mut reports: mpsc::Receiver<Report>) {
    let now = Instant::now();
    let mut reporter = Reporter {
        client,
        prefix,
        ledger: Ledger::default(),
        events_from: now,
        status_from: now,
        told: false,
        status_told: false,
    };
    while let Some(report) = reports.recv().await {
        match report {
            Report::Holds {
                id,
                uid,
                notices,
                condition,
            } => {
                reporter.tell(&id, &uid, &notices).await;
                if let Some(condition) = condition {
                    reporter.note(&id, condition).await;
                }
            }
            Report::Gone(id) => reporter.ledger.forget(&id),
            Report::Stale(id) => reporter.clear(&id).await,
        }
    }
}

impl Reporter {
    async fn tell(&mut self, id: &ServiceId, uid: &str, notices: &[Notice]) {
        for notice in self.ledger.fresh(id, uid, notices) {
            if Instant::now() < self.events_from {
                return;
            }
            match self.send(id, uid, &notice).await {
                Sent::Done => {
                    self.told = false;
                    self.ledger.said(id, notice);
                }
                Sent::Refused => self.events_from = later(PAUSE_REFUSED),
                Sent::Failed => self.events_from = later(PAUSE_FAILED),
            }
        }
    }

    async fn send(&mut self, id: &ServiceId, uid: &str, notice: &Notice) -> Sent {
        // kube's Recorder takes Events of the same reason for one and then repeats the note of the first; here every
        // note counts, and the ledger sees to repetitions. Hence a recorder for each.
        let recorder = Recorder::new(self.client.clone(), Source::from(CONTROLLER));
        let event = Event {
            type_: match notice.weight {
                Weight::Normal => EventType::Normal,
                Weight::Warning => EventType::Warning,
            },
            reason: notice.reason.to_owned(),
            note: Some(clip(&notice.note)),
            action: "Expose".to_owned(),
            secondary: None,
        };
        let answer = timeout(PATIENCE, recorder.publish(&event, &reference(id, uid))).await;
        match answer {
            Ok(Ok(())) => Sent::Done,
            Ok(Err(error)) if is_namespace_gone(&error) => Sent::Done,
            Ok(Err(Error::Api(status))) if status.is_forbidden() => {
                self.complain(&format!(
                    "the agent may not write Events, so the owners of Services don't learn what is wrong with them: {}. \
                     Apply deploy/kubernetes (ClusterRole exposer-agent: create and patch on events in events.k8s.io)",
                    status.message
                ));
                Sent::Refused
            }
            Ok(Err(error)) => {
                self.complain(&format!(
                    "an Event could not be written, and is tried again: {error}"
                ));
                Sent::Failed
            }
            Err(_) => {
                self.complain("the API server did not take an Event in time; it is tried again");
                Sent::Failed
            }
        }
    }

    /// Says it once, until an Event was written.
    fn complain(&mut self, text: &str) {
        if self.told {
            debug!(component = "kube", action = "event", "{text}");
        } else {
            warn!(component = "kube", action = "event", "{text}");
            self.told = true;
        }
    }

    async fn note(&mut self, id: &ServiceId, condition: Condition) {
        let previous = self.ledger.condition(id);
        if previous.is_some_and(|(before, _)| *before == condition) || Instant::now() < self.status_from {
            return;
        }
        let since = status::since(previous, &condition, Timestamp::now());
        if self.write(id, Some((&condition, since))).await {
            self.ledger.written(id, condition, since);
        }
    }

    async fn clear(&mut self, id: &ServiceId) {
        if Instant::now() >= self.status_from {
            self.write(id, None).await;
        }
    }

    /// Writes or removes the condition; says whether it was done. After a failure the status rests for a while.
    async fn write(&mut self, id: &ServiceId, condition: Option<(&Condition, Timestamp)>) -> bool {
        let answer = timeout(PATIENCE, status::write(&self.client, &self.prefix, id, condition)).await;
        match answer {
            Ok(Ok(())) => return true,
            Ok(Err(Error::Api(status))) if status.is_not_found() => {}
            Ok(Err(Error::Api(status))) if status.is_forbidden() => {
                if !self.status_told {
                    info!(
                        component = "kube",
                        action = "degrade",
                        "the agent may not write the status of Services; Events tell the same. To allow it, apply \
                         deploy/kubernetes/optional/clusterrole-status.yaml"
                    );
                    self.status_told = true;
                }
                self.status_from = later(PAUSE_REFUSED);
            }
            Ok(Err(error)) => {
                debug!(component = "kube", action = "status", service = %id, %error, "the status was not written");
                self.status_from = later(PAUSE_FAILED);
            }
            Err(_) => self.status_from = later(PAUSE_FAILED),
        }
        false
    }
}

fn later(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

/// In a namespace that is being deleted nothing can be created, and nobody reads it either.
fn is_namespace_gone(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    status.is_not_found()
        || status
            .details
            .iter()
            .flat_map(|details| &details.causes)
            .any(|cause| cause.reason == "NamespaceTerminating")
}

/// The Service as an Event refers to it.
fn reference(id: &ServiceId, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// A note of at most [`MAX_NOTE`] bytes.
fn clip(note: &str) -> String {
    if note.len() <= MAX_NOTE {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE.saturating_sub('…'.len_utf8()));
    format!("{}…", note.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_clipped_between_characters() {
        assert_eq!(clip("short"), "short");
        for note in ["x".repeat(5000), "ä".repeat(5000), "日".repeat(5000)] {
            let clipped = clip(&note);
            assert!(
                clipped.len() <= MAX_NOTE && clipped.len() > MAX_NOTE - 8,
                "{}",
                clipped.len()
            );
            assert!(clipped.ends_with('…'));
        }
    }
}
