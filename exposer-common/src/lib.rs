//! What the kernel programs, the edge and the agent of Exposer share.
//!
//! The core of this crate is `no_std`: it is linked into the eBPF object as it is. It holds the structs of the BPF
//! maps ([`service`], [`flow`], [`link`]), the numbered [`verdict`] reasons and the pure packet decisions ([`net`]).
//! Everything the kernel programs *decide* is decided here, by functions that take and return values, so that it is
//! tested on the host; the programs only check bounds, call, and apply.
//!
//! # Byte order
//!
//! * Addresses are byte arrays in network order (`[u8; 4]`, `[u8; 16]`): `bpftool map dump` prints them readably.
//! * Ports in *configuration* maps (services) are `u16` in **host** order, for the same reason.
//! * Ports in *flow* keys and entries are `[u8; 2]` in **network** order: they are compared with and copied into
//!   packets, never read by a person in a hurry (`exposer-edge flows` prints them).
//! * Checksum differences are the 32-bit one's complement sums that `bpf_l4_csum_replace` expects.
//!
//! # Padding
//!
//! No struct that crosses the kernel boundary has implicit padding: every byte is a named field, sizes and offsets
//! are asserted at compile time beside the struct and pinned by `tests/layout.rs`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `std` | nothing by itself; lets the others use the standard library |
//! | `aya` | `aya::Pod` for the map structs ([`pod`]) |
//! | `proto` | the control channel: messages, codec, token proof ([`proto`]) and the Service model ([`model`]) |
//! | `k8s` | the annotation grammar ([`k8s`]) |
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod flow;
#[cfg(feature = "k8s")]
pub mod k8s;
pub mod link;
#[cfg(feature = "proto")]
pub mod model;
pub mod names;
pub mod net;
#[cfg(feature = "aya")]
pub mod pod;
#[cfg(feature = "proto")]
pub mod proto;
pub mod service;
pub mod verdict;
