//! From HTTP requests to the store and back: verbs, paging, and the few fixed answers of an API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::core_events;
use super::resource::{RESOURCES, Target};
use super::select::Selector;
use super::status::Refused;
use super::watch::{self, Start, Wish};
use super::{Request, Shared};

type Parameters = BTreeMap<String, String>;

/// The server's only route.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Response {
    if let Some(fixed) = fixed(uri.path()) {
        return Json(fixed).into_response();
    }
    let Some(target) = Target::parse(uri.path()) else {
        return Refused::no_such_path().into_response();
    };
    let watched = parameters
        .get("watch")
        .is_some_and(|value| value == "true" || value == "1");
    let verb = match (&method, &target.name) {
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) if watched => "watch",
        (&Method::GET, None) => "list",
        (&Method::POST, None) => "create",
        (&Method::PUT, Some(_)) => "update",
        (&Method::PATCH, Some(_)) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        _ => return Refused::method().into_response(),
    };
    let judged = shared.access().check(&target, verb);
    shared.note(Request {
        verb,
        resource: target.resource.plural,
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        subresource: target.subresource.clone(),
        allowed: judged.is_ok(),
    });
    let outcome = judged.and_then(|()| match verb {
        "list" if core_events::is_view(target.resource) => list_core_events(&shared, &target, &parameters),
        _ if core_events::is_view(target.resource) => Err(Refused::method()),
        "watch" => watch_objects(&shared, &target, &parameters),
        "list" => list(&shared, &target, &parameters),
        "get" => shared
            .store()
            .get(
                target.resource,
                target.namespace.as_deref().unwrap_or_default(),
                target.name.as_deref().unwrap_or_default(),
            )
            .map(|object| Json(&*object).into_response()),
        _ => write(&shared, &target, verb, &body),
    });
    outcome.unwrap_or_else(IntoResponse::into_response)
}

fn watch_objects(
    shared: &Arc<Shared>,
    target: &Target,
    parameters: &Parameters,
) -> Result<Response, Refused> {
    let marked = parameters
        .get("sendInitialEvents")
        .is_some_and(|value| value == "true");
    let start = match parameters.get("resourceVersion").map_or("", String::as_str) {
        _ if marked => Start::Initial { marked },
        "" | "0" => Start::Initial { marked },
        text => Start::After(number("resourceVersion", text)?),
    };
    let seconds = match parameters.get("timeoutSeconds") {
        Some(text) => number("timeoutSeconds", text)?,
        None => 1800,
    };
    let wish = Wish {
        resource: target.resource,
        selector: selector(target, parameters)?,
        start,
        bookmarks: parameters
            .get("allowWatchBookmarks")
            .is_some_and(|value| value == "true"),
        timeout: Duration::from_secs(seconds).min(shared.watch_limit()),
    };
    if let (Start::After(revision), true) = (wish.start, shared.gone_at_once()) {
        shared.store().since(revision).map(drop)?;
    }
    let body = Body::from_stream(watch::serve(Arc::clone(shared), wish));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn list(shared: &Shared, target: &Target, parameters: &Parameters) -> Result<Response, Refused> {
    let limit = match parameters.get("limit") {
        Some(text) => usize::try_from(number("limit", text)?).unwrap_or(usize::MAX),
        None => 0,
    };
    let mut store = shared.store();
    let page = match parameters.get("continue").filter(|token| !token.is_empty()) {
        Some(token) => store.next_page(number("continue", token)?, limit)?,
        None => store.list(target.resource, &selector(target, parameters)?, limit),
    };
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let (Some((token, left)), Some(metadata)) = (page.next, metadata.as_object_mut()) {
        metadata.insert("continue".to_owned(), json!(token.to_string()));
        metadata.insert("remainingItemCount".to_owned(), json!(left));
    }
    let items: Vec<&Value> = page.items.iter().map(|item| &**item).collect();
    let answer = json!({
        "kind": format!("{}List", target.resource.kind),
        "apiVersion": target.resource.api_version(),
        "metadata": metadata,
        "items": items,
    });
    Ok(Json(answer).into_response())
}

fn list_core_events(shared: &Shared, target: &Target, parameters: &Parameters) -> Result<Response, Refused> {
    let selector = selector(target, parameters)?;
    let store = shared.store();
    let items = core_events::list(&store, &selector);
    let metadata = json!({ "resourceVersion": store.revision().to_string() });
    Ok(
        Json(json!({ "kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": items }))
            .into_response(),
    )
}

fn write(shared: &Shared, target: &Target, verb: &str, body: &[u8]) -> Result<Response, Refused> {
    let namespace = target.namespace.as_deref();
    let name = target.name.as_deref().unwrap_or_default();
    let object = || {
        serde_json::from_slice::<Value>(body)
            .map_err(|error| Refused::bad_request(format!("the body is not JSON: {error}")))
    };
    let (code, object) = {
        let mut store = shared.store();
        match verb {
            "create" => (
                StatusCode::CREATED,
                store.create(target.resource, namespace, object()?)?,
            ),
            "update" => (
                StatusCode::OK,
                store.replace(target.resource, namespace, object()?)?,
            ),
            "patch" => (
                StatusCode::OK,
                store.patch(target.resource, namespace, name, &object()?)?,
            ),
            _ => (
                StatusCode::OK,
                store.delete(target.resource, namespace.unwrap_or_default(), name)?,
            ),
        }
    };
    shared.written();
    Ok((code, Json(&*object)).into_response())
}

fn selector(target: &Target, parameters: &Parameters) -> Result<Selector, Refused> {
    Selector::parse(
        target.namespace.clone(),
        parameters.get("labelSelector").map(String::as_str),
        parameters.get("fieldSelector").map(String::as_str),
    )
}

fn number(field: &str, text: &str) -> Result<u64, Refused> {
    text.parse()
        .map_err(|_| Refused::bad_request(format!("{field}: Invalid value: \"{text}\"")))
}

/// Health, version and discovery: enough for `kubectl get` to find the resources.
fn fixed(path: &str) -> Option<Value> {
    let path = path.trim_end_matches('/');
    match path {
        "/version" => Some(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0+exposer-testkit", "gitCommit": "", "gitTreeState": "",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
        })),
        "/healthz" | "/livez" | "/readyz" => Some(json!("ok")),
        "/api" => {
            Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
        }
        "/apis" => Some(groups()),
        _ => {
            let rest = path
                .strip_prefix("/apis/")
                .or_else(|| path.strip_prefix("/api/"))?;
            let found: Vec<Value> = RESOURCES
                .iter()
                .filter(|resource| resource.api_version() == rest)
                .map(|resource| {
                    json!({
                        "name": resource.plural, "singularName": resource.kind.to_lowercase(),
                        "namespaced": resource.namespaced, "kind": resource.kind,
                        "shortNames": if resource.short.is_empty() { vec![] } else { vec![resource.short] },
                        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
                    })
                })
                .collect();
            (!found.is_empty()).then(|| {
                json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": rest, "resources": found })
            })
        }
    }
}

fn groups() -> Value {
    let groups: Vec<Value> = RESOURCES
        .iter()
        .filter(|resource| !resource.group.is_empty())
        .map(|resource| {
            let version = json!({ "groupVersion": resource.api_version(), "version": resource.version });
            json!({ "name": resource.group, "versions": [version], "preferredVersion": version })
        })
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}
