//! What the kernel path needs of the kernel and of this process.

use std::path::Path;

use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use exposer_common::flow::{Bucket, FlowEntry, FlowKey, FragmentKey, FragmentPorts, SourceKey};
use exposer_common::link::{LINK_SLOTS, LinkEntry};
use exposer_common::names::{
    FLOW_SLOTS, FRAGMENT_SLOTS, HANDED_SLOTS, NET_SLOTS, SERVICE_SLOTS, SOURCE_SLOTS,
};
use exposer_common::service::{PORT_SLOTS, ServiceCounters, ServiceEntry, ServiceKey};
use exposer_common::verdict::Reason;
use nix::sys::statfs::BPF_FS_MAGIC;

use super::report::Row;
use crate::cli::output::bytes;
use crate::config::Config;
use crate::datapath::kernel::object;

/// The oldest kernel that the programs were tried on.
const OLDEST: (u32, u32) = (6, 1);
/// The first kernel with TCX links.
const TCX: (u32, u32) = (6, 6);

pub(super) fn rows(config: &Config) -> Vec<Row> {
    let effective = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_or(0, |status| status.capeff);
    vec![
        kernel(config),
        btf(config),
        capabilities(config, effective),
        privileged_ports(effective),
        programs(config),
        attach(config),
        bpffs(config),
        embedded(config),
        memory(config),
    ]
}

/// Major and minor version in a release like `6.1.0-18-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(config: &Config) -> Row {
    let row = Row::new("kernel");
    let release = nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    let tried = format!("Linux {}.{} or later", OLDEST.0, OLDEST.1);
    match version(&release) {
        Some(found) if found >= OLDEST => row.ok(format!("Linux {release}")),
        _ => row.kernel_path_lacks(
            config.datapath,
            format!("Linux {release}"),
            format!("{tried} is needed"),
        ),
    }
}

fn btf(config: &Config) -> Row {
    let row = Row::new("btf");
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return row.ok(format!("{path} is there"));
    }
    let remedy = "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build it";
    row.kernel_path_lacks(config.datapath, format!("{path} is missing"), remedy)
}

/// Capabilities by number (linux/capability.h): each is needed, or the one behind it.
const NEEDED: &[(&str, u32, Option<u32>)] = &[
    ("CAP_BPF", 39, Some(CAP_SYS_ADMIN)),
    ("CAP_PERFMON", 38, Some(CAP_SYS_ADMIN)),
    ("CAP_NET_ADMIN", 12, None),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_NET_BIND_SERVICE: u32 = 10;

const fn has(effective: u64, number: u32) -> bool {
    effective.wrapping_shr(number) & 1 == 1
}

fn capabilities(config: &Config, effective: u64) -> Row {
    let row = Row::new("capabilities");
    let lacks = |(_, number, instead): &&(&str, u32, Option<u32>)| {
        !has(effective, *number) && !instead.is_some_and(|instead| has(effective, instead))
    };
    let missing: Vec<&str> = NEEDED.iter().filter(lacks).map(|(name, ..)| *name).collect();
    if missing.is_empty() {
        return row.ok("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN");
    }
    let remedy = "run as root, or give them with AmbientCapabilities= as the systemd unit does";
    row.kernel_path_lacks(
        config.datapath,
        format!("missing: {}", missing.join(", ")),
        remedy,
    )
}

/// Ports below `net.ipv4.ip_unprivileged_port_start` need a capability on either path.
fn privileged_ports(effective: u64) -> Row {
    let row = Row::new("privileged-ports");
    let start = super::facts::sysctl("net.ipv4.ip_unprivileged_port_start").unwrap_or(1024);
    if has(effective, CAP_NET_BIND_SERVICE) || start <= 1 {
        return row.ok("any port can be opened");
    }
    row.warn(
        format!("ports below {start} can't be opened"),
        "run as root or with CAP_NET_BIND_SERVICE, else Services on such ports get no listener",
    )
}

fn programs(config: &Config) -> Row {
    let row = Row::new("bpf-programs");
    match aya::sys::is_program_supported(ProgramType::SchedClassifier) {
        Ok(true) => row.ok("the kernel loads TC programs"),
        Ok(false) => row.kernel_path_lacks(
            config.datapath,
            "the kernel refuses TC programs",
            "use a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET_CLS_BPF; containers and lockdown may forbid bpf(2)",
        ),
        Err(error) => row.kernel_path_lacks(
            config.datapath,
            format!("can't be tried: {error}"),
            "run the check as root; containers and lockdown may forbid bpf(2)",
        ),
    }
}

/// Asks the kernel itself, on the loopback interface: nothing is attached.
fn attach(config: &Config) -> Row {
    let row = Row::new("attach");
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => row.ok("TCX with pinned links"),
        Err(error) => {
            let found = format!(
                "TCX does not answer ({error}): clsact filters are used below Linux {}.{}",
                TCX.0, TCX.1
            );
            let old = nix::sys::utsname::uname().is_ok_and(|name| {
                version(&name.release().to_string_lossy()).is_some_and(|found| found < TCX)
            });
            if old {
                return row.ok(found);
            }
            row.kernel_path_lacks(config.datapath, found, "run the check as root")
        }
    }
}

/// The folder, or the nearest one above it that exists, must lie on a BPF file system.
fn bpffs(config: &Config) -> Row {
    let row = Row::new("bpffs");
    let shown = config.bpffs.display();
    let existing = config
        .bpffs
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match nix::sys::statfs::statfs(existing) {
        Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => row.ok(format!("{shown} is on a BPF file system")),
        _ => row.kernel_path_lacks(
            config.datapath,
            format!("{shown} is not on a BPF file system"),
            "mount -t bpf bpf /sys/fs/bpf (systemd does so by itself), or set EXPOSER_BPFFS to a folder on one",
        ),
    }
}

fn embedded(config: &Config) -> Row {
    let row = Row::new("ebpf-object");
    match object::object() {
        Some(object) => row.ok(format!(
            "{} are embedded in this binary",
            bytes(object.len().try_into().unwrap_or(0))
        )),
        None => row.kernel_path_lacks(config.datapath, "this binary carries none", object::MISSING),
    }
}

/// Bytes that the kernel allocates for the maps, for `cpus` possible CPUs: elements of hash tables have a header of 48
/// bytes (`struct htab_elem`) and a bucket of 16, those of arrays are rounded to 8.
fn map_bytes(cpus: u64) -> u64 {
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX).next_multiple_of(8);
    let hash = |slots: u32, key: usize, value: usize| {
        let slots = u64::from(slots);
        let elements = slots.saturating_mul(48_u64.saturating_add(size(key)).saturating_add(size(value)));
        elements.saturating_add(slots.next_power_of_two().saturating_mul(16))
    };
    let array = |slots: u32, value: usize, copies: u64| {
        u64::from(slots)
            .saturating_mul(size(value))
            .saturating_mul(copies)
    };
    [
        hash(FLOW_SLOTS, size_of::<FlowKey>(), size_of::<FlowEntry>()).saturating_mul(2),
        hash(SERVICE_SLOTS, size_of::<ServiceKey>(), size_of::<ServiceEntry>()),
        hash(HANDED_SLOTS, size_of::<FlowKey>(), size_of::<u64>()),
        hash(SOURCE_SLOTS, size_of::<SourceKey>(), size_of::<Bucket>()),
        hash(
            FRAGMENT_SLOTS,
            size_of::<FragmentKey>(),
            size_of::<FragmentPorts>(),
        ),
        array(SERVICE_SLOTS, size_of::<Bucket>(), 1),
        array(PORT_SLOTS, 1, 1),
        array(LINK_SLOTS, size_of::<LinkEntry>(), 1),
        array(NET_SLOTS, 64, 1),
        array(SERVICE_SLOTS, size_of::<ServiceCounters>(), cpus),
        array(Reason::SLOTS, size_of::<u64>(), cpus),
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

fn memory(config: &Config) -> Row {
    let row = Row::new("map-memory");
    let cpus = aya::util::nr_cpus()
        .ok()
        .and_then(|cpus| u64::try_from(cpus).ok())
        .unwrap_or(1);
    let needed = map_bytes(cpus);
    let found = format!(
        "the maps take {} ({needed} bytes), {FLOW_SLOTS} flows",
        bytes(needed)
    );
    match available() {
        Some(available) if available < needed => row.kernel_path_lacks(
            config.datapath,
            format!("{found}; {} are available", bytes(available)),
            "give the machine more memory",
        ),
        Some(available) => row.ok(format!("{found}; {} are available", bytes(available))),
        None => row.ok(found),
    }
}

/// Bytes that could be allocated, by /proc/meminfo.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.5+"), Some((6, 18)));
        assert_eq!(version("6.6"), Some((6, 6)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn the_flow_table_is_most_of_the_memory() {
        // Two tables of 128 bytes an entry and 16 a bucket: 112 MiB, and a few besides.
        let flows = 2 * (393_216 * 128 + 524_288 * 16);
        let all = map_bytes(2);
        assert!(all > flows && all < flows + flows / 6, "{all} for {flows}");
    }

    #[test]
    fn capability_bits() {
        assert!(has(1 << 39, 39) && !has(1 << 39, 38) && has(u64::MAX, 12));
    }
}
