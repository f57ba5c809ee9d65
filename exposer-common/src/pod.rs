//! `aya::Pod` for the map structs, each with the argument why any of its bytes may be copied to and from the kernel.

use crate::flow::{Bucket, Control, FlowEntry, FlowKey, FragmentKey, FragmentPorts, SourceKey};
use crate::link::{LinkEntry, NetKind};
use crate::service::{PortMode, ServiceCounters, ServiceEntry, ServiceKey};

// SAFETY: repr(C), integers and byte arrays only, no implicit padding (asserted beside the struct).
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for FlowEntry {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for Control {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for FragmentKey {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for FragmentPorts {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for Bucket {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for SourceKey {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for LinkEntry {}
// SAFETY: as FlowKey.
unsafe impl aya::Pod for ServiceCounters {}
// SAFETY: repr(C) without padding; its enum is written by the edge alone, into a map whose layout version is part of
// the pin path, so a value that is read back has a discriminant that this version wrote.
unsafe impl aya::Pod for ServiceKey {}
// SAFETY: as ServiceKey.
unsafe impl aya::Pod for ServiceEntry {}
// SAFETY: repr(u8); zero, the value of a fresh array cell, is a discriminant; others are written by the edge alone.
unsafe impl aya::Pod for PortMode {}
// SAFETY: repr(u8), written by the edge alone; hash-like maps hold no cell that nobody wrote.
unsafe impl aya::Pod for NetKind {}
