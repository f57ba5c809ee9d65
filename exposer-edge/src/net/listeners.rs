//! Ports that other programs of this host listen on, with their owners, from procfs.
//!
//! A port is *listened on* when a TCP socket is in LISTEN, or when a UDP socket is bound and not connected. Sockets of
//! this very process are left out: they are the public ports themselves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use exposer_common::model::Protocol;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};
use procfs::process::{FDTarget, Process};
use procfs::{FromReadSI, ProcError, current_system_info};
use serde::Serialize;

use crate::datapath::BindingKey;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its id.
    pub pid: i32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, pid {}", self.name, self.pid)
    }
}

/// One socket that others can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its own address; unspecified = all of them.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whose it is; none where that can't be read.
    pub owner: Option<Owner>,
    /// Whether it belongs to the kernel itself, as those of WireGuard and other tunnels do.
    pub kernel: bool,
}

impl Listener {
    /// Who it is, for a message: `nginx, pid 123`.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.owner, self.kernel) {
            (Some(owner), _) => owner.to_string(),
            (None, true) => "the kernel itself, for WireGuard or another tunnel".to_owned(),
            (None, false) => "a program that this process may not see".to_owned(),
        }
    }

    /// Whether a socket on `address` and the same port would meet this one.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        let own = self.address.ip().to_canonical();
        // A socket on [::] takes IPv4 as well, unless it says otherwise, which procfs does not tell.
        own == address.to_canonical() || own == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) || {
            own.is_unspecified() && own.is_ipv4() == address.to_canonical().is_ipv4()
        }
    }
}

/// A socket of the tables, before its owner is known.
struct Found {
    address: SocketAddr,
    protocol: Protocol,
    inode: u64,
}

/// Every listener of other processes in the network namespace of the calling thread. Blocks for some milliseconds.
///
/// # Errors
///
/// When the socket tables can't be read; an owner that can't be read is no error.
pub fn scan() -> io::Result<Vec<Listener>> {
    let found = sockets()?;
    let own = own_inodes();
    let wanted: HashSet<u64> = found
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0)
        .collect();
    let owners = owners(&wanted);
    let listener = |socket: Found| Listener {
        address: socket.address,
        protocol: socket.protocol,
        owner: owners.get(&socket.inode).cloned(),
        kernel: socket.inode == 0,
    };
    let others = found.into_iter().filter(|socket| !own.contains(&socket.inode));
    Ok(others.map(listener).collect())
}

/// Who listens on `address`, for a message: `nginx, pid 123`.
#[must_use]
pub fn owner_of(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let same = |listener: &Listener| {
        listener.protocol == protocol
            && listener.address.port() == address.port()
            && listener.covers(address.ip())
    };
    scan()
        .ok()?
        .into_iter()
        .find(same)
        .map(|listener| listener.describe())
}

/// The ports of `listeners` that must not be given to a Service, with the reason for each. Those that only this host
/// itself can reach (loopback) are in nobody's way.
#[must_use]
pub fn reserved(listeners: &[Listener]) -> BTreeMap<BindingKey, String> {
    listeners
        .iter()
        .filter(|listener| !listener.address.ip().to_canonical().is_loopback())
        .map(|listener| {
            let key = BindingKey {
                port: listener.address.port(),
                protocol: listener.protocol,
            };
            (key, format!("in use by {} on this host", listener.describe()))
        })
        .collect()
}

/// Listening sockets of all four tables.
fn sockets() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let entries = optional(TcpNetEntries::from_file(path(table), current_system_info()))?;
        let listening = entries.into_iter().flat_map(|entries| entries.0);
        found.extend(
            listening
                .filter(|entry| entry.state == TcpState::Listen)
                .map(|entry| Found {
                    address: entry.local_address,
                    protocol: Protocol::Tcp,
                    inode: entry.inode,
                }),
        );
    }
    for table in ["udp", "udp6"] {
        let entries = optional(UdpNetEntries::from_file(path(table), current_system_info()))?;
        let bound = entries.into_iter().flat_map(|entries| entries.0);
        found.extend(
            bound
                .filter(|entry| entry.state == UdpState::Close)
                .map(|entry| Found {
                    address: entry.local_address,
                    protocol: Protocol::Udp,
                    inode: entry.inode,
                }),
        );
    }
    found.retain(|socket| socket.address.port() != 0);
    Ok(found)
}

/// The table of the calling thread's own network namespace.
pub(super) fn path(table: &str) -> String {
    format!("/proc/thread-self/net/{table}")
}

/// A table that may be absent: those of IPv6 where it is disabled.
pub(super) fn optional<T>(result: Result<T, ProcError>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

fn own_inodes() -> HashSet<u64> {
    Process::myself()
        .map(|process| socket_inodes(&process).collect())
        .unwrap_or_default()
}

fn socket_inodes(process: &Process) -> impl Iterator<Item = u64> + use<> {
    let descriptors = process.fd().ok().into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
}

/// The first process found for each of the `wanted` sockets. Processes that vanish or may not be read are passed over.
fn owners(wanted: &HashSet<u64>) -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    let processes = procfs::process::all_processes()
        .ok()
        .into_iter()
        .flatten()
        .flatten();
    for process in processes {
        if owners.len() == wanted.len() {
            break;
        }
        let sockets: Vec<u64> = socket_inodes(&process)
            .filter(|inode| wanted.contains(inode))
            .collect();
        if sockets.is_empty() {
            continue;
        }
        let Ok(stat) = process.stat() else { continue };
        for inode in sockets {
            owners.entry(inode).or_insert_with(|| Owner {
                name: stat.comm.clone(),
                pid: stat.pid,
            });
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            protocol: Protocol::Tcp,
            owner: None,
            kernel: false,
        }
    }

    #[test]
    fn what_covers_what() {
        for (own, address, covers) in [
            ("0.0.0.0:80", "203.0.113.1", true),
            ("0.0.0.0:80", "2001:db8::1", false),
            ("[::]:80", "203.0.113.1", true),
            ("[::]:80", "2001:db8::1", true),
            ("127.0.0.1:80", "203.0.113.1", false),
            ("203.0.113.1:80", "203.0.113.1", true),
            ("[::ffff:203.0.113.1]:80", "203.0.113.1", true),
        ] {
            assert_eq!(
                listener(own).covers(address.parse().unwrap()),
                covers,
                "{own} {address}"
            );
        }
    }

    #[test]
    fn loopback_reserves_nothing() {
        let listeners = [
            "127.0.0.53:53",
            "[::1]:631",
            "[::ffff:127.0.0.1]:7",
            "0.0.0.0:22",
            "10.0.0.1:9090",
        ];
        let reserved = reserved(&listeners.map(listener));
        let ports: Vec<u16> = reserved.keys().map(|key| key.port).collect();
        assert_eq!(ports, [22, 9090]);
    }
}
