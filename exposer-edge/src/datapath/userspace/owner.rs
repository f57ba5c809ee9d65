//! Who holds a port that is in use: best effort, for an error message.

use std::net::{IpAddr, SocketAddr};

use exposer_common::model::Protocol;
use procfs::process::{FDTarget, all_processes};

/// `name, pid N` of a process of this network namespace that is bound to `local` or to its wildcard, if it can be seen.
#[must_use]
pub fn owner_of(local: SocketAddr, protocol: Protocol) -> Option<String> {
    let inode = inode_of(local, protocol)?;
    all_processes().ok()?.flatten().find_map(|process| {
        let holds = process
            .fd()
            .ok()?
            .flatten()
            .any(|open| matches!(open.target, FDTarget::Socket(socket) if socket == inode));
        holds.then_some(())?;
        Some(format!("{}, pid {}", process.stat().ok()?.comm, process.pid))
    })
}

fn inode_of(local: SocketAddr, protocol: Protocol) -> Option<u64> {
    let clashes = |other: SocketAddr| {
        other.port() == local.port()
            && (other.ip().is_unspecified() || canonical(other.ip()) == canonical(local.ip()))
    };
    match protocol {
        Protocol::Tcp => [procfs::net::tcp(), procfs::net::tcp6()]
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.state == procfs::net::TcpState::Listen && clashes(entry.local_address))
            .map(|entry| entry.inode),
        Protocol::Udp => [procfs::net::udp(), procfs::net::udp6()]
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| clashes(entry.local_address))
            .map(|entry| entry.inode),
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
