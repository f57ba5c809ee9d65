//! Single cells of the maps `PORTS` and `SERVICES`.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use aya::maps::{IterableMap as _, MapError};
use exposer_common::model::Protocol;
use exposer_common::service::{L4Proto, PORT_SLOTS, PortMode, ServiceEntry, ServiceKey};

use super::batch;
use super::error::{bpf, os_error};
use super::maps::ConfigMaps;
use crate::datapath::{BindingKey, DatapathError};

/// The key of a binding on a public address.
#[must_use]
pub fn service_key(address: Ipv4Addr, key: BindingKey) -> ServiceKey {
    ServiceKey {
        address: address.octets(),
        port: key.port,
        proto: key.protocol.into(),
        pad: 0,
    }
}

/// The entry of a key, if there is one.
///
/// # Errors
///
/// What the system said.
pub fn get(maps: &ConfigMaps, key: &ServiceKey) -> Result<Option<ServiceEntry>, DatapathError> {
    match maps.services.get(key, 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(bpf("reading the map SERVICES")(error)),
    }
}

/// Deletes a key; a missing one is no error.
///
/// # Errors
///
/// What the system said.
pub fn delete(maps: &mut ConfigMaps, key: &ServiceKey) -> Result<(), DatapathError> {
    match maps.services.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(bpf("deleting from the map SERVICES")(error)),
    }
}

/// Says what becomes of packets to a port.
///
/// # Errors
///
/// What the system said.
pub fn set_port(maps: &mut ConfigMaps, key: BindingKey, mode: PortMode) -> Result<(), DatapathError> {
    let slot = L4Proto::from(key.protocol).port_slot(key.port);
    maps.ports
        .set(slot, mode, 0)
        .map_err(bpf("writing the map PORTS"))
}

/// Every port whose cell in `PORTS` says that it is ours.
///
/// # Errors
///
/// What the system said.
pub fn managed_ports(maps: &ConfigMaps) -> Result<Vec<BindingKey>, DatapathError> {
    let mut ports = Vec::new();
    batch::for_each(maps.ports.map().fd().as_fd(), |slot: &u32, mode: &PortMode| {
        let protocol = if *slot < PORT_SLOTS / 2 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        if let (true, Ok(port)) = (*mode != PortMode::Unmanaged, u16::try_from(*slot & 0xffff)) {
            ports.push(BindingKey { port, protocol });
        }
    })
    .map_err(|source| DatapathError::System {
        action: "reading the map PORTS".to_owned(),
        source,
    })?;
    Ok(ports)
}
