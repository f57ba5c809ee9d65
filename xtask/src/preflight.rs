//! What the privileged tests and the demo need of the machine, checked before anything long is begun.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Result, bail};

use crate::command::Cmd;

/// Checks everything at once, so that a person mends it in one go.
///
/// # Errors
///
/// With a line for each thing that is missing, and what to do about it.
pub fn check(verb: &str, instead: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {verb}` makes network namespaces and loads BPF programs, which needs root. Run:\n  \
             sudo --preserve-env=HOME,CARGO_HOME,RUSTUP_HOME env \"PATH=$PATH\" cargo xtask {verb}{instead}"
        );
    }
    let missing: Vec<_> = [namespaces(), tun(), btf(), bpffs()]
        .into_iter()
        .flatten()
        .collect();
    if !missing.is_empty() {
        bail!(
            "this machine can't run `cargo xtask {verb}`:\n- {}",
            missing.join("\n- ")
        );
    }
    Ok(())
}

/// Whether this process has root's user id.
pub fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|meta| meta.uid() == 0)
}

fn namespaces() -> Option<String> {
    let made = Cmd::new("unshare").args(["--net", "true"]).output();
    let reason = match made {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "no network namespace can be made ({reason}): in a container, run it with --privileged; \
         `unshare` and `nsenter` are in the package util-linux"
    ))
}

fn tun() -> Option<String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.err().map(|error| {
        format!("/dev/net/tun can't be opened ({error}), which userspace WireGuard needs: run `modprobe tun`, or give the container the device")
    })
}

fn btf() -> Option<String> {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    (!there).then(|| "the kernel has no BTF (/sys/kernel/btf/vmlinux): boot one with CONFIG_DEBUG_INFO_BTF, as every stock Debian kernel is".to_owned())
}

fn bpffs() -> Option<String> {
    let there = Path::new("/sys/fs/bpf").is_dir();
    (!there).then(|| {
        "/sys/fs/bpf is not there: the kernel has no BPF (CONFIG_BPF_SYSCALL), or /sys is not mounted"
            .to_owned()
    })
}
