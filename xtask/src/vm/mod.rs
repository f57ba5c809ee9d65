//! `cargo xtask vm`: the tests that depend on the kernel, on Debian's stock kernels, over the WireGuard in them.
//!
//! | file | duty |
//! |---|---|
//! | [`mod@kernels`], [`qemu`] | what boots, from the machine or from Debian |
//! | [`stories`] | which tests |
//! | [`initramfs`], [`cpio`], [`modules`] | what the guest holds |
//! | `init.sh` | the guest's first process |
//! | [`guest`] | a running guest, killed when it hangs or breaks down |
//! | [`report`] | what it told |

mod cpio;
mod guest;
mod initramfs;
mod kernels;
mod modules;
mod qemu;
mod report;
mod room;
mod stories;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::guest::{End, Patience};
use self::initramfs::Contents;
use self::kernels::Kernel;
use self::qemu::{Accel, Qemu};
use self::report::Report;
use self::stories::{Story, Suite};
use crate::command::{note, step};
use crate::{build, build_ebpf, paths};

/// The kernels that are promised: the oldest, with clsact alone, and one with TCX.
const KERNELS: &[&str] = &["6.1", "6.12"];
/// The first line of kernels that has TCX.
const TCX: (u32, u32) = (6, 6);
/// How long hardware acceleration may take to boot before software is tried.
const HARDWARE_BOOT: Duration = Duration::from_secs(30);

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run only the tests whose name contains this, or the test program of this name.
    filter: Option<String>,
    /// A kernel, as 6.1 (may be given several times). Without it, 6.1 and, where the apt sources have it, 6.12.
    #[arg(long, value_name = "LINE")]
    kernel: Vec<String>,
    /// Keep the console's log also when all is well.
    #[arg(long)]
    keep_console: bool,
    /// What computes the guest's instructions.
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    accel: Accel,
    /// The longest that one test may take in the guest, in seconds.
    #[arg(long, default_value_t = 300)]
    patience: u64,
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// Runs the tests on every kernel and prints the table.
///
/// # Errors
///
/// When something needed is missing or does not build. A failed test is no error but a failing exit status.
pub fn run(options: &Options) -> Result<ExitCode> {
    let dir = paths::target().join("vm");
    std::fs::create_dir_all(&dir).with_context(|| format!("can't make the folder {}", dir.display()))?;
    room::check(&dir)?;
    let qemu = Qemu::provide()?;
    let kernels = kernels(&options.kernel)?;
    build_ebpf::build(&options.ebpf)?;
    build::binaries_for_tests()?;
    let suites = stories::build_suites()?;
    let planned = stories::list(&suites, options.filter.as_deref())?;
    let (mut reports, mut times, mut accel) = (Vec::new(), Vec::new(), options.accel);
    for kernel in &kernels {
        let start = Instant::now();
        let visit = Visit {
            options,
            dir: &dir,
            qemu: &qemu,
            kernel,
            suites: &suites,
            planned: &planned,
        };
        reports.push(visit.run(&mut accel)?);
        times.push(start.elapsed());
    }
    println!("{}", report::table(&planned, &reports, &times));
    let good = reports.iter().all(Report::is_good);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The kernels that were asked for, or all that can be had.
fn kernels(asked: &[String]) -> Result<Vec<Kernel>> {
    if !asked.is_empty() {
        return asked.iter().map(|line| kernels::provide(line)).collect();
    }
    let mut found = Vec::new();
    for line in KERNELS {
        match kernels::provide(line) {
            Ok(kernel) => found.push(kernel),
            Err(error) => note(format_args!("going on without kernel {line}: {error:#}")),
        }
    }
    if found.is_empty() {
        bail!("there is no kernel to boot (see above)");
    }
    Ok(found)
}

/// One kernel's run.
struct Visit<'a> {
    options: &'a Options,
    dir: &'a Path,
    qemu: &'a Qemu,
    kernel: &'a Kernel,
    suites: &'a [Suite],
    planned: &'a [Story],
}

impl Visit<'_> {
    fn run(&self, accel: &mut Accel) -> Result<Report> {
        let line = &self.kernel.line;
        step(format_args!("kernel {line}: packing"));
        let initramfs = self.dir.join(format!("initramfs-{line}"));
        let contents = Contents {
            suites: self.suites,
            stories: self.planned,
            patience: self.options.patience,
        };
        initramfs::write(&initramfs, self.kernel, &contents)?;
        let log = self.dir.join(format!("console-{line}.log"));
        let (mut report, end, tail) = self.boot(&initramfs, &log, accel)?;
        std::fs::remove_file(&initramfs)?;
        if let Some(why) = failure(&end, &report) {
            eprintln!("--- the console's last lines\n{tail}\n---");
            report.broken.push(why);
        }
        if self.options.filter.is_none() {
            check_rung(&mut report);
        }
        eprint!("{}", report.outputs);
        for text in &report.broken {
            eprintln!("kernel {line}: {text}");
        }
        for text in &report.warnings {
            note(format_args!("the kernel warned: {text}"));
        }
        self.keep_or_remove(&log, &report)?;
        Ok(report)
    }

    /// Boots with hardware acceleration, if it may be there, and else, or if nothing comes of it, without.
    fn boot(&self, initramfs: &Path, log: &Path, accel: &mut Accel) -> Result<(Report, End, String)> {
        let line = &self.kernel.line;
        if *accel == Accel::Kvm || (*accel == Accel::Auto && hardware()) {
            step(format_args!("kernel {line}: booting with /dev/kvm"));
            let result = self.once(initramfs, log, Accel::Kvm, HARDWARE_BOOT)?;
            if *accel == Accel::Kvm || result.1 != End::NoBoot {
                return Ok(result);
            }
            note("/dev/kvm does not boot it; going on in software");
            *accel = Accel::Tcg;
        }
        step(format_args!("kernel {line}: booting in software (no /dev/kvm)"));
        self.once(initramfs, log, Accel::Tcg, Duration::from_secs(120))
    }

    fn once(
        &self,
        initramfs: &Path,
        log: &Path,
        accel: Accel,
        boot: Duration,
    ) -> Result<(Report, End, String)> {
        let silence = Duration::from_secs(self.options.patience.saturating_add(60));
        let patience = Patience {
            boot,
            silence,
            whole: Duration::from_secs(1800),
        };
        let mut report = Report::new(&self.kernel.line, self.planned);
        let command = self.qemu.command(self.kernel, initramfs, accel);
        let (end, tail) = guest::run(&command, log, patience, &mut report)?;
        Ok((report, end, tail))
    }

    fn keep_or_remove(&self, log: &PathBuf, report: &Report) -> Result<()> {
        if report.is_good() && !self.options.keep_console {
            std::fs::remove_file(log)?;
        } else {
            note(format_args!("the console's log: {}", log.display()));
        }
        Ok(())
    }
}

/// Whether the processor can run guests and the device may be opened.
fn hardware() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = cpu.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    able && std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

fn failure(end: &End, report: &Report) -> Option<String> {
    match end {
        End::Done => None,
        End::NoBoot => Some("the guest did not boot".to_owned()),
        End::Broken(why) => {
            let during = report.running().map(|story| format!(", during {story}"));
            Some(format!("{why}{}", during.unwrap_or_default()))
        }
    }
}

/// TCX is there from Linux 6.6 on; below, clsact must have held.
fn check_rung(report: &mut Report) {
    let Some(line) = line_of(&report.kernel) else {
        return;
    };
    let wanted = if line >= TCX { "tcx" } else { "clsact" };
    let seen = report.facts.get("rung").map_or("none", String::as_str);
    if seen != wanted {
        report
            .broken
            .push(format!("the programs were attached by {seen}, expected {wanted}"));
    }
}

fn line_of(kernel: &str) -> Option<(u32, u32)> {
    let (major, minor) = kernel.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_has_its_rung() {
        for (kernel, rung, broken) in [
            ("6.1", "clsact", 0),
            ("6.1", "tcx", 1),
            ("6.12", "tcx", 0),
            ("6.12", "clsact", 1),
        ] {
            let mut report = Report::new(kernel, &[]);
            report.line(&format!("@@ fact rung {rung}"));
            check_rung(&mut report);
            assert_eq!(report.broken.len(), broken, "{kernel} {rung}");
        }
    }
}
