//! What Exposer's privileged tests and its demo share: network namespaces, WireGuard, traffic with checksums, and a
//! small Kubernetes API server.
pub mod kube_api;
pub mod netns;
pub mod tools;
pub mod traffic;
pub mod wireguard;
