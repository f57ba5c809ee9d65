//! Exposer's cluster agent: watches annotated Services and reports them to the edge.
//!
//! [`kube`] turns what the API server says into [`exposer_common::model::ServiceRecord`]s; [`edge_client`] keeps one
//! authenticated session to each edge and sends it snapshots and deltas; [`app`] wires the two.
pub mod app;
pub mod args;
pub mod config;
pub mod desired;
pub mod edge_client;
pub mod error;
pub mod http;
pub mod kube;
pub mod parse;
pub mod readiness;
pub mod telemetry;
