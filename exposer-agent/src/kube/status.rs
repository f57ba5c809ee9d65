//! The condition `PREFIX/Exposed` in the status of a Service, for `kubectl wait` and dashboards. Opt-in: without the
//! right to patch `services/status` the agent leaves it.

use ::kube::api::{Api, Patch, PatchParams};
use ::kube::{Client, Error};
use exposer_common::model::ServiceId;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::Finding;
use super::notice::{EdgeWord, answering};

/// Field manager of the condition; nobody else's conditions are touched.
const MANAGER: &str = "exposer-agent";
/// Longest message of a condition, as the API server takes it.
const MAX_MESSAGE: usize = 32_768;

/// Whether a Service is exposed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True` if at least one public port answers.
    pub exposed: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// The type of the condition.
#[must_use]
pub fn condition_type(prefix: &str) -> String {
    format!("{prefix}/Exposed")
}

/// The condition that holds for a Service; none before an edge has said anything of a valid one.
#[must_use]
pub fn condition(finding: &Finding, words: &[EdgeWord<'_>], domain: &str) -> Option<Condition> {
    let record = match &finding.verdict {
        Ok(record) => record,
        Err(error) => {
            return Some(Condition {
                exposed: false,
                reason: "InvalidAnnotation",
                message: error.to_string(),
            });
        }
    };
    if words.is_empty() {
        return None;
    }
    let ports: Vec<String> = words.iter().filter_map(|word| answering(word.outcome)).collect();
    if !ports.is_empty() {
        return Some(Condition {
            exposed: true,
            reason: "Exposed",
            message: format!("{}.{domain} answers on {}", record.subdomain, ports.join("; ")),
        });
    }
    let texts: Vec<&str> = words
        .iter()
        .flat_map(|word| {
            let ports = word.outcome.ports.iter().map(|port| &port.refused);
            std::iter::once(&word.outcome.refused).chain(ports)
        })
        .flatten()
        .map(|refusal| refusal.text.as_str())
        .collect();
    Some(Condition {
        exposed: false,
        reason: "Refused",
        message: texts.join("; "),
    })
}

/// Since when a condition's status holds: a new reason or message is no transition.
#[must_use]
pub fn since(previous: Option<&(Condition, Timestamp)>, condition: &Condition, now: Timestamp) -> Timestamp {
    match previous {
        Some((before, since)) if before.exposed == condition.exposed => *since,
        _ => now,
    }
}

/// Writes the condition, with the time since when it holds, by server-side apply; or removes it.
///
/// # Errors
///
/// What the API server says; 403 where the opt-in role is not applied, 404 where the Service is gone.
pub async fn write(
    client: &Client,
    prefix: &str,
    id: &ServiceId,
    condition: Option<(&Condition, Timestamp)>,
) -> Result<(), Error> {
    let conditions: Vec<Value> = condition
        .map(
            |(
                Condition {
                    exposed,
                    reason,
                    message,
                },
                since,
            )| {
                let end = message.floor_char_boundary(MAX_MESSAGE);
                json!({
                    "type": condition_type(prefix),
                    "status": if *exposed { "True" } else { "False" },
                    "reason": reason,
                    "message": message.get(..end).unwrap_or_default(),
                    "lastTransitionTime": seconds(since),
                })
            },
        )
        .into_iter()
        .collect();
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": id.name, "namespace": id.namespace },
        "status": { "conditions": conditions },
    });
    Api::<Service>::namespaced(client.clone(), &id.namespace)
        .patch_status(
            &id.name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(patch),
        )
        .await?;
    Ok(())
}

/// As the API server takes a time: whole seconds.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_status_is_a_transition() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let condition = |exposed, message: &str| Condition {
            exposed,
            reason: "Exposed",
            message: message.to_owned(),
        };
        let first = condition(true, "80/tcp");
        assert_eq!(since(None, &first, at(5)), at(5));
        let written = (first, at(5));
        assert_eq!(since(Some(&written), &condition(true, "30007/tcp"), at(9)), at(5));
        assert_eq!(since(Some(&written), &condition(false, "refused"), at(9)), at(9));
    }

    #[test]
    fn times_are_written_in_whole_seconds() {
        let time = Timestamp::from_millisecond(1_767_323_045_678).unwrap();
        assert_eq!(seconds(time), "2026-01-02T03:04:05Z");
    }
}
