//! Who may do what: credentials, RBAC rules taken from real manifests, and resources that a test turns off.

use std::collections::BTreeSet;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::resource::Target;
use super::status::Refused;

/// One rule of a Role or ClusterRole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    /// Where the rule holds; none means everywhere.
    #[serde(skip)]
    namespace: Option<String>,
}

impl Rule {
    fn allows(&self, target: &Target, verb: &str) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|entry| entry == item || entry == "*");
        let resource = match &target.subresource {
            Some(sub) => format!("{}/{sub}", target.resource.plural),
            None => target.resource.plural.to_owned(),
        };
        has(&self.api_groups, target.resource.group)
            && has(&self.resources, &resource)
            && has(&self.verbs, verb)
            && (self.namespace.is_none() || self.namespace == target.namespace)
    }
}

/// The rules that hold at the moment; by default everything is allowed.
#[derive(Debug, Default)]
pub struct Access {
    rules: Option<Vec<Rule>>,
    denied: BTreeSet<String>,
    reject_credentials: bool,
}

impl Access {
    /// From here on only what the Roles and ClusterRoles in `manifests` (YAML documents) allow is allowed. Bindings are
    /// not read: a ClusterRole counts as bound in the whole cluster, a Role in its namespace.
    ///
    /// # Errors
    ///
    /// Where the text is no YAML, or a rule has another shape than RBAC's.
    pub fn enforce(&mut self, manifests: &str) -> anyhow::Result<()> {
        let mut rules = Vec::new();
        for document in super::documents(manifests)? {
            let namespace = match document.get("kind").and_then(Value::as_str) {
                Some("ClusterRole") => None,
                Some("Role") => document
                    .pointer("/metadata/namespace")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                _ => continue,
            };
            let list = document.get("rules").cloned().unwrap_or_default();
            let list: Vec<Rule> = serde_json::from_value(list).context("reading the rules of a role")?;
            rules.extend(list.into_iter().map(|rule| Rule {
                namespace: namespace.clone(),
                ..rule
            }));
        }
        self.rules = Some(rules);
        Ok(())
    }

    /// Refuses every verb on this resource (plural name), or allows it again.
    pub fn deny(&mut self, plural: &str, denied: bool) {
        if denied {
            self.denied.insert(plural.to_owned());
        } else {
            self.denied.remove(plural);
        }
    }

    /// Answers every request with 401, or no longer.
    pub const fn reject_credentials(&mut self, reject: bool) {
        self.reject_credentials = reject;
    }

    /// Judges one request.
    ///
    /// # Errors
    ///
    /// 401 or 403, worded as the API server words it.
    pub fn check(&self, target: &Target, verb: &str) -> Result<(), Refused> {
        if self.reject_credentials {
            return Err(Refused::unauthorized());
        }
        let allowed = self
            .rules
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| rule.allows(target, verb)));
        if !allowed || self.denied.contains(target.resource.plural) {
            return Err(Refused::forbidden(
                target.resource,
                verb,
                target.namespace.as_deref(),
            ));
        }
        Ok(())
    }
}
