//! What Exposer's privileged tests and its demo share: network namespaces, WireGuard, traffic with checksums, real
//! processes, and a small Kubernetes API server.
//!
//! Everything here is real: namespaces of the kernel, WireGuard (the kernel's, or `wireguard-go` where it has none),
//! sockets, and the project's own binaries. What is made is named after its test and its process, is taken down when
//! its guard is dropped (also by a panic), and what a killed run left behind is swept by the next one. Nothing that
//! this crate did not make is ever touched (see [`claim`]).

pub mod bpffs;
pub mod claim;
pub mod cut;
pub mod interrupt;
pub mod kube_api;
pub mod netns;
pub mod process;
pub mod scratch;
pub mod tools;
pub mod topology;
pub mod traffic;
pub mod turn;
pub mod wireguard;
