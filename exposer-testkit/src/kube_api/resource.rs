//! The resources that the server knows, and how their paths are read.

/// One kind of object, as the API names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Name in paths and in RBAC rules: `services`.
    pub plural: &'static str,
    /// Name in manifests: `Service`.
    pub kind: &'static str,
    /// What `kubectl` users type: `svc`; may be empty.
    pub short: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

const fn resource(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    namespaced: bool,
) -> Resource {
    Resource {
        group,
        version,
        plural,
        kind,
        short,
        namespaced,
    }
}

/// Everything that is served.
pub static RESOURCES: [Resource; 13] = [
    resource("", "v1", "services", "Service", "svc", true),
    resource("", "v1", "nodes", "Node", "no", false),
    resource("", "v1", "namespaces", "Namespace", "ns", false),
    resource("", "v1", "pods", "Pod", "po", true),
    resource("", "v1", "configmaps", "ConfigMap", "cm", true),
    resource("", "v1", "secrets", "Secret", "", true),
    resource("", "v1", "serviceaccounts", "ServiceAccount", "sa", true),
    resource(
        "",
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        "pvc",
        true,
    ),
    resource("apps", "v1", "deployments", "Deployment", "deploy", true),
    resource(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        "",
        true,
    ),
    resource("events.k8s.io", "v1", "events", "Event", "ev", true),
    // The view of core_events; after the real one, which a bare kind means.
    resource("", "v1", "events", "Event", "ev", true),
    resource("coordination.k8s.io", "v1", "leases", "Lease", "", true),
];

impl Resource {
    /// The resource that a manifest's `apiVersion` and `kind` name.
    #[must_use]
    pub fn of_manifest(api_version: &str, kind: &str) -> Option<&'static Self> {
        RESOURCES
            .iter()
            .find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// `v1`, or `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// How the API server names it in messages: `services`, `deployments.apps`.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// What a request path points at.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Which kind of object.
    pub resource: &'static Resource,
    /// Its namespace; none means cluster scope, or all namespaces.
    pub namespace: Option<String>,
    /// Its name; none means the collection.
    pub name: Option<String>,
    /// `status`, for example.
    pub subresource: Option<String>,
}

impl Target {
    /// Reads a path such as `/api/v1/namespaces/default/services/web/status`; none where it names nothing served.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (group, version) = match segments.next()? {
            "api" => ("", segments.next()?),
            "apis" => (segments.next()?, segments.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = segments.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && *rest != ["status"] => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some((*name).to_owned()), None),
            [plural, name, sub] => (*plural, Some((*name).to_owned()), Some((*sub).to_owned())),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })?;
        (resource.namespaced || namespace.is_none()).then_some(Self {
            resource,
            namespace,
            name,
            subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_api_server_reads_them() {
        let all = Target::parse("/api/v1/services").unwrap();
        assert_eq!(
            (all.resource.kind, &all.namespace, &all.name),
            ("Service", &None, &None)
        );
        let one = Target::parse("/apis/discovery.k8s.io/v1/namespaces/games/endpointslices/mc-1").unwrap();
        assert_eq!(one.resource.kind, "EndpointSlice");
        assert_eq!(one.namespace.as_deref(), Some("games"));
        assert_eq!(one.name.as_deref(), Some("mc-1"));
        let status = Target::parse("/api/v1/namespaces/games/services/mc/status").unwrap();
        assert_eq!(status.subresource.as_deref(), Some("status"));
        let namespace = Target::parse("/api/v1/namespaces/games").unwrap();
        assert_eq!(
            (namespace.resource.kind, namespace.name.as_deref()),
            ("Namespace", Some("games"))
        );
        for unknown in [
            "/api/v1/gadgets",
            "/api/v1/namespaces/x/nodes",
            "/healthz",
            "/apis/apps/v2/deployments",
        ] {
            assert_eq!(Target::parse(unknown), None, "{unknown}");
        }
    }
}
