//! Cuts a TCP connection of another process in the middle, as a broken middlebox would: by shutting down its socket
//! through a duplicate of its file descriptor.

use std::fs;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};

use nix::sys::socket::{Shutdown, shutdown};

use crate::netns::Handle;

/// Shuts down every TCP connection of process `pid` to `peer`, and returns how many there were.
///
/// # Errors
///
/// There is none, or no privilege.
pub fn connections(netns: &Handle, pid: u32, peer: SocketAddrV4) -> Result<usize> {
    let table =
        netns.run(|| fs::read_to_string("/proc/thread-self/net/tcp").context("cannot read net/tcp"))?;
    let inodes: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| inode_if_to(line, peer))
        .collect();
    let process = duplicate_of_process(pid)?;
    let mut cut = 0_usize;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .context("the process is gone")?
        .flatten()
    {
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.to_string_lossy().into_owned();
        let inode = link
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        if !inode.is_some_and(|inode| inodes.contains(&inode)) {
            continue;
        }
        let number: i32 = entry
            .file_name()
            .to_string_lossy()
            .parse()
            .context("an odd file descriptor")?;
        let socket = duplicate_of_fd(&process, number)?;
        shutdown(socket.as_raw_fd(), Shutdown::Both).context("cannot shut the socket down")?;
        cut = cut.saturating_add(1);
    }
    if cut == 0 {
        bail!("process {pid} has no TCP connection to {peer}");
    }
    Ok(cut)
}

/// The socket's inode, if this line of /proc/net/tcp is a connection to `peer` (proc_net_tcp: addresses are written
/// as host-order words in hexadecimal).
fn inode_if_to(line: &str, peer: SocketAddrV4) -> Option<&str> {
    let address = u32::from_ne_bytes(peer.ip().octets());
    let wanted = format!("{address:08X}:{:04X}", peer.port());
    let mut words = line.split_ascii_whitespace();
    (words.nth(2)? == wanted).then_some(())?;
    words.nth(6)
}

fn duplicate_of_process(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd).context("pidfd_open")
}

fn duplicate_of_fd(process: &OwnedFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: pidfd_getfd(2) takes three integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    owned(fd).context("pidfd_getfd")
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let Some(fd) = fd else {
        return Err(std::io::Error::last_os_error().into());
    };
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_matched_by_its_peer() {
        let line = "   1: 0200000A:C350 0100000A:2382 01 00000000:00000000 02:000006D6 00000000     0        0 86114 2 0";
        let peer: SocketAddrV4 = "10.0.0.1:9090".parse().unwrap();
        assert_eq!(inode_if_to(line, peer), Some("86114"));
        assert_eq!(inode_if_to(line, "10.0.0.1:9091".parse().unwrap()), None);
    }
}
