//! Disk and memory that a guest takes, checked before anything long is begun.

use std::path::Path;

use anyhow::{Result, bail};

use super::qemu::MEMORY;
use crate::command::Cmd;

/// MiB of disk: two kernels (110 each), QEMU (90), and the initramfs of one guest with its stripped programs.
const DISK: u64 = 1000;
/// MiB beside a guest's memory: QEMU's own.
const BESIDE: u64 = 400;

/// Checks that there is room for one guest.
///
/// # Errors
///
/// With what is missing, and what to do.
pub fn check(dir: &Path) -> Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(free) = available_memory(&text).filter(|free| *free < MEMORY + BESIDE) {
        bail!(
            "a guest takes {} MiB of memory, and {free} are free: end other programs, or add swap: fallocate -l 2G \
             /swap && chmod 600 /swap && mkswap /swap && swapon /swap",
            MEMORY + BESIDE
        );
    }
    let df = Cmd::new("df").args(["--output=avail", "-BM"]).arg(dir).read()?;
    if let Some(free) = available_disk(&df).filter(|free| *free < DISK) {
        bail!(
            "{DISK} MiB of disk are needed in {}, and {free} are free: make room there (cargo clean), or set \
             CARGO_TARGET_DIR and EXPOSER_CACHE_DIR to folders on another disk",
            dir.display()
        );
    }
    Ok(())
}

/// MiB that can be had, swap among them.
fn available_memory(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("MemAvailable:")? + field("SwapFree:").unwrap_or(0)) / 1024)
}

/// MiB in what `df --output=avail -BM` prints below its heading.
fn available_disk(df: &str) -> Option<u64> {
    df.lines().nth(1)?.trim().trim_end_matches('M').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_read_as_it_is_printed() {
        let text = "MemTotal: 9 kB\nMemAvailable:    2048 kB\nSwapFree:   1024 kB\n";
        assert_eq!(available_memory(text), Some(3));
        assert_eq!(available_memory("MemTotal: 9 kB\n"), None);
        assert_eq!(available_disk("Avail\n  734M\n"), Some(734));
        assert_eq!(available_disk(""), None);
    }
}
