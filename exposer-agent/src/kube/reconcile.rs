//! The loop: takes in changes and outcomes, publishes the desired state, reports to the owners of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ::kube::Client;
use exposer_common::model::ServiceId;
use exposer_common::proto::message::ServiceOutcome;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::KubeSettings;
use super::cluster::{Cluster, Finding, desired};
use super::events::{self, Report};
use super::notice::{EdgeWord, notices};
use super::status::condition;
use super::watch;
use crate::desired::{DesiredSender, Outcomes};

/// Changes that may wait; a watch that is faster than the loop is held up.
const CHANGES: usize = 256;
/// Reports that may wait; beyond that they are left to the next resync.
const REPORTS: usize = 4096;

type Findings = BTreeMap<ServiceId, Finding>;

struct Reconciler {
    settings: KubeSettings,
    cluster: Cluster,
    findings: Findings,
    /// The Services whose status says what holds no more.
    stale: BTreeSet<ServiceId>,
    /// The newest word of each edge on each Service.
    outcomes: BTreeMap<String, BTreeMap<ServiceId, ServiceOutcome>>,
    desired: DesiredSender,
    reports: mpsc::Sender<Report>,
}

/// Watches the cluster until `shutdown`: publishes on `desired` what is wanted, and tells the owners of Services what
/// the edges make of it. It returns before `shutdown` only where a task of its own broke. Errors of the API server are logged and retried; the last state stays published meanwhile.
pub async fn run(
    client: Client,
    settings: KubeSettings,
    desired: DesiredSender,
    mut outcomes: mpsc::Receiver<Outcomes>,
    shutdown: CancellationToken,
) {
    let (sink, mut changes) = mpsc::channel(CHANGES);
    let (reports, waiting) = mpsc::channel(REPORTS);
    let mut tasks = watch::spawn(&client, &settings.namespaces, &sink);
    tasks.spawn(events::publish(
        client,
        settings.keys.prefix().to_owned(),
        waiting,
    ));
    // An interval of nothing would panic.
    let mut resync = tokio::time::interval(settings.resync.max(Duration::from_secs(1)));
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconciler = Reconciler {
        cluster: Cluster::new(settings.keys.clone(), settings.namespaces.len().max(1)),
        settings,
        findings: Findings::new(),
        stale: BTreeSet::new(),
        outcomes: BTreeMap::new(),
        desired,
        reports,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(change) = changes.recv() => {
                reconciler.cluster.apply(change);
                // A list arrives as many changes; what already waits is judged together.
                while let Ok(change) = changes.try_recv() {
                    reconciler.cluster.apply(change);
                }
                reconciler.reconcile();
            }
            // None of them ends by itself; without it the agent would be blind, and its supervisor starts it again.
            Some(ended) = tasks.join_next() => {
                let cause = ended.err().map(tracing::field::display);
                error!(component = "kube", action = "stop", cause, "a watch or the reporter ended unexpectedly");
                break;
            }
            Some(word) = outcomes.recv() => reconciler.hear(word),
            _ = resync.tick() => {
                reconciler.reconcile();
                reconciler.report(reconciler.findings.keys());
                reconciler.report_stale(&BTreeSet::new());
            }
        }
    }
    tasks.shutdown().await;
}

impl Reconciler {
    /// Judges the whole cluster again and publishes what changed.
    fn reconcile(&mut self) {
        if !self.cluster.is_complete() {
            return;
        }
        let findings = self.cluster.findings();
        let before = std::mem::replace(&mut self.findings, findings);
        let wanted = desired(&self.findings);
        self.desired.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&wanted);
            if changed {
                *current = Some(Arc::new(wanted));
            }
            changed
        });
        let changed: BTreeSet<&ServiceId> = self
            .findings
            .iter()
            .filter(|(id, finding)| before.get(*id) != Some(*finding))
            .map(|(id, _)| id)
            .collect();
        for id in &changed {
            if let Some(finding) = self.findings.get(*id) {
                log_change(id, finding, before.get(*id));
            }
        }
        self.report(changed.into_iter());
        for id in before.keys().filter(|id| !self.findings.contains_key(*id)) {
            info!(component = "kube", service = %id, action = "delete", "the Service is not to be exposed any more");
            self.send(Report::Gone(id.clone()));
        }
        let told = std::mem::replace(&mut self.stale, self.cluster.stale());
        self.report_stale(&told);
        // An edge forgets what it is not asked for, and so does the agent.
        for words in self.outcomes.values_mut() {
            words.retain(|id, _| {
                self.findings
                    .get(id)
                    .is_some_and(|finding| finding.verdict.is_ok())
            });
        }
    }

    /// Takes in what an edge says.
    fn hear(&mut self, word: Outcomes) {
        let Outcomes { edge, outcomes } = word;
        let known = self.outcomes.entry(edge).or_default();
        let mut named = Vec::new();
        for outcome in outcomes {
            // The last word on a deleted Service comes after it is gone.
            if self
                .findings
                .get(&outcome.id)
                .is_some_and(|finding| finding.verdict.is_ok())
            {
                named.push(outcome.id.clone());
                known.insert(outcome.id.clone(), outcome);
            }
        }
        self.report(named.iter());
    }

    /// Reports all that holds for these Services.
    fn report<'a>(&self, ids: impl Iterator<Item = &'a ServiceId>) {
        for id in ids {
            let Some(finding) = self.findings.get(id) else {
                continue;
            };
            let several = self.outcomes.len() > 1;
            let words: Vec<EdgeWord<'_>> = self
                .outcomes
                .iter()
                .filter_map(|(edge, words)| {
                    Some(EdgeWord {
                        edge: several.then_some(edge.as_str()),
                        outcome: words.get(id)?,
                    })
                })
                .collect();
            self.send(Report::Holds {
                id: id.clone(),
                uid: finding.uid.clone(),
                notices: notices(finding, &words, &self.settings.domain),
                condition: condition(finding, &words, &self.settings.domain),
            });
        }
    }

    /// Has the status of stale Services put right, but for those of `told`.
    fn report_stale(&self, told: &BTreeSet<ServiceId>) {
        for id in self.stale.difference(told) {
            self.send(Report::Stale(id.clone()));
        }
    }

    fn send(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            debug!(
                component = "kube",
                action = "report",
                "too many reports wait; the next resync repeats this one"
            );
        }
    }
}

fn log_change(id: &ServiceId, finding: &Finding, before: Option<&Finding>) {
    let action = if before.is_none() { "add" } else { "update" };
    for unknown in &finding.unknown {
        warn!(component = "kube", service = %id, action, "{unknown}");
    }
    match &finding.verdict {
        Ok(record) => info!(
            component = "kube",
            service = %id,
            subdomain = record.subdomain,
            ports = record.ports.len(),
            target = record.cluster_ip.map(tracing::field::display),
            action,
            "the Service is to be exposed"
        ),
        Err(error) => {
            warn!(component = "kube", service = %id, action = "skip", "the Service is not exposed: {error}");
        }
    }
}
