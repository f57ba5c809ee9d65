//! The Kubernetes side of the agent against the embedded API server: the real client, the real watcher, real HTTP on
//! the loopback address. One story a file; no privilege needed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test is what a panic is for"
)]

mod binary;
mod credentials;
mod examples;
mod expired;
mod live;
mod malformed;
mod manifests;
mod namespaces;
mod nodes;
mod outage;
mod outcomes;
mod support;
