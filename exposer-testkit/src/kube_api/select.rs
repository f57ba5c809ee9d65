//! Which objects a list or watch is about: namespace, `labelSelector` and `fieldSelector`.

use serde_json::Value;

use super::status::Refused;

/// The fields that can be selected by.
const FIELDS: [&str; 6] = [
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
];

/// The conditions of one list or watch; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    namespace: Option<String>,
    conditions: Vec<(String, String)>,
}

impl Selector {
    /// Reads the parts of a request. Only equality is understood (`key=value`, `key==value`), and of the fields only
    /// name and namespace, and what an Event is about.
    ///
    /// # Errors
    ///
    /// 400 for anything else, so that a test never believes that a filter held which was not applied.
    pub fn parse(
        namespace: Option<String>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Refused> {
        let mut conditions = Vec::new();
        for term in terms(labels) {
            let (key, value) = equality(term)?;
            conditions.push((format!("/metadata/labels/{}", escape(key)), value.to_owned()));
        }
        for term in terms(fields) {
            let pointer = match equality(term)? {
                (field, value) if FIELDS.contains(&field) => {
                    (format!("/{}", field.replace('.', "/")), value.to_owned())
                }
                (other, _) => {
                    return Err(Refused::bad_request(format!(
                        "field label not supported: {other}"
                    )));
                }
            };
            conditions.push(pointer);
        }
        Ok(Self {
            namespace,
            conditions,
        })
    }

    /// Whether `object` is one of those that were asked for.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        self.namespace
            .as_deref()
            .is_none_or(|namespace| text("/metadata/namespace") == Some(namespace))
            && self
                .conditions
                .iter()
                .all(|(pointer, value)| text(pointer) == Some(value))
    }
}

fn terms(selector: Option<&str>) -> impl Iterator<Item = &str> {
    selector
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty())
}

fn equality(term: &str) -> Result<(&str, &str), Refused> {
    match term.split_once('=') {
        Some((key, value)) if !key.ends_with('!') => Ok((key.trim(), value.trim_start_matches('=').trim())),
        _ => Err(Refused::bad_request(format!(
            "selector \"{term}\" is not supported: only equality is"
        ))),
    }
}

/// RFC 6901 §3: `~` and `/` of a key within a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_conditions_must_hold() {
        let object = json!({"metadata": {"name": "web", "namespace": "a", "labels": {"app.io/name": "x"}}});
        let select = |namespace: Option<&str>, labels, fields| {
            Selector::parse(namespace.map(str::to_owned), labels, fields)
                .unwrap()
                .matches(&object)
        };
        assert!(select(None, None, None));
        assert!(select(
            Some("a"),
            Some("app.io/name=x"),
            Some("metadata.name=web")
        ));
        assert!(select(None, Some("app.io/name==x"), None));
        assert!(!select(Some("b"), None, None));
        assert!(!select(None, Some("app.io/name=y"), None));
        assert!(!select(None, None, Some("metadata.name=other")));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(Selector::parse(None, Some("a!=b"), None).is_err());
        assert!(Selector::parse(None, Some("a in (b)"), None).is_err());
        assert!(Selector::parse(None, None, Some("spec.type=NodePort")).is_err());
    }
}
