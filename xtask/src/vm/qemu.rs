//! QEMU: the machine's, or Debian's unpacked below the cache; and the command line that boots a guest.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use crate::command::{Cmd, note, step};
use crate::debian::{Archive, Unpacked, Wanted};
use crate::files::find_program;
use crate::paths;
use crate::stamp::Stamp;

const PROGRAM: &str = "qemu-system-x86_64";
/// The program, its accelerator modules, its option ROMs, and its BIOS.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
];

/// Memory of a guest, in MiB: maps of the kernel path are preallocated, and the initramfs lies in it twice for a moment.
pub const MEMORY: u64 = 2048;

/// QEMU, wherever it is from.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    unpacked: Option<Unpacked>,
}

/// What computes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// Hardware where it boots the kernel, else software.
    Auto,
    /// Hardware (/dev/kvm).
    Kvm,
    /// Software.
    Tcg,
}

impl Qemu {
    /// Finds QEMU on this machine, else unpacks Debian's.
    ///
    /// # Errors
    ///
    /// When there is none and none can be had: the text says what to install.
    pub fn provide() -> Result<Self> {
        if let Some(program) = find_program(PROGRAM) {
            note(format_args!("QEMU: {}", program.display()));
            return Ok(Self {
                program,
                unpacked: None,
            });
        }
        let dir = paths::cache().join("tools/qemu");
        let _lock = paths::lock(&dir)?;
        let stamp = Stamp::new(&dir, PACKAGES);
        let root = dir.join("root");
        let unpacked = if stamp.holds() {
            Unpacked { root }
        } else {
            step(format_args!(
                "providing QEMU in {} (once, 90 MB; nothing is installed)",
                dir.display()
            ));
            let advice = "QEMU is not on this machine; install it: apt install qemu-system-x86";
            let archive = Archive::open().context(advice)?;
            let wanted: Vec<_> = PACKAGES
                .iter()
                .map(|name| {
                    if *name == "qemu-system-x86" {
                        Wanted::with_libraries(name)
                    } else {
                        Wanted::alone(name)
                    }
                })
                .collect();
            let plan = archive.plan(&wanted).context(advice)?;
            stamp.clear()?;
            let unpacked = archive.unpack(&plan, &root)?;
            stamp.set()?;
            unpacked
        };
        let program = unpacked.root.join("usr/bin").join(PROGRAM);
        note(format_args!("QEMU: Debian's, unpacked: {}", program.display()));
        Ok(Self {
            program,
            unpacked: Some(unpacked),
        })
    }

    /// The command that boots `kernel` with `initramfs`; its standard output is the guest's console.
    pub fn command(&self, kernel: &Kernel, initramfs: &Path, accel: Accel) -> Cmd {
        let mut cmd = Cmd::new(&self.program);
        if let Some(unpacked) = &self.unpacked {
            let share = unpacked.root.join("usr/share");
            let modules = format!("usr/lib/{}-linux-gnu/qemu", std::env::consts::ARCH);
            cmd = cmd
                .env("LD_LIBRARY_PATH", unpacked.library_path(&[]))
                .env("QEMU_MODULE_DIR", unpacked.root.join(modules))
                .arg("-L")
                .arg(share.join("qemu"))
                .arg("-L")
                .arg(share.join("seabios"));
        }
        cmd = match accel {
            Accel::Kvm => cmd.args(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg | Accel::Auto => cmd.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        };
        cmd.args(["-smp", "2", "-m", &MEMORY.to_string()])
            .args(["-display", "none", "-vga", "none", "-nic", "none", "-monitor", "none"])
            .args(["-serial", "stdio", "-no-reboot", "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            // An oops ends the guest at once; levels above "warning" would drown the console.
            .args([
                "-append",
                "console=ttyS0 loglevel=5 oops=panic panic=-1 softlockup_panic=0 rcupdate.rcu_cpu_stall_timeout=120",
            ])
    }
}
