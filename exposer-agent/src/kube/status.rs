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

/// Writes the condition by server-side apply, or removes it.
///
/// # Errors
///
/// What the API server says; 403 where the opt-in role is not applied, 404 where the Service is gone.
pub async fn write(
    client: &Client,
    prefix: &str,
    id: &ServiceId,
    condition: Option<&Condition>,
) -> Result<(), Error> {
    let conditions: Vec<Value> = condition
        .map(
            |Condition {
                 exposed,
                 reason,
                 message,
             }| {
                let end = message.floor_char_boundary(MAX_MESSAGE);
                json!({
                    "type": format!("{prefix}/Exposed"),
                    "status": if *exposed { "True" } else { "False" },
                    "reason": reason,
                    "message": message.get(..end).unwrap_or_default(),
                    "lastTransitionTime": Timestamp::now().round(k8s_openapi::jiff::Unit::Second)
                        .unwrap_or_default().to_string(),
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
