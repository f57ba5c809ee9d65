//! What a guest holds: the tests, the daemon, the tools with their libraries, and the modules of its kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use super::kernels::Kernel;
use super::modules::{Modules, WANTED};
use super::stories::{Story, Suite};
use crate::command::{Cmd, note};
use crate::debian;
use crate::files::find_program;
use crate::paths;
use crate::stamp::Stamp;
use crate::tools;

/// Where Debian's loader looks for libraries.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// Programs of this machine, each in a package that every Debian has.
const PROGRAMS: &[&str] = &["bash", "nsenter", "unshare"];
/// Of busybox; its `ip` and its shell are left out, because they lack what the tests use.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cp", "date", "dmesg", "env", "false", "grep", "head", "id", "insmod", "kill", "ln",
    "ls", "mkdir", "mount", "mv", "poweroff", "ps", "rm", "rmdir", "sed", "seq", "sleep", "sort", "stat",
    "sysctl", "tail", "timeout", "touch", "tr", "true", "umount", "uname", "wc",
];

/// What is the same for every kernel.
pub struct Contents<'a> {
    /// The test programs.
    pub suites: &'a [Suite],
    /// What is to be run, in this order.
    pub stories: &'a [Story],
    /// The longest that one story may take, in seconds.
    pub patience: u64,
}

/// Writes the initramfs for `kernel` to `file`.
///
/// # Errors
///
/// When a program, a library or a module is missing.
pub fn write(file: &Path, kernel: &Kernel, contents: &Contents<'_>) -> Result<()> {
    let out = File::create(file).with_context(|| format!("can't write {}", file.display()))?;
    let mut guest = Guest {
        archive: Archive::new(BufWriter::new(out)),
        libraries: BTreeSet::new(),
        work: file.with_extension("work"),
    };
    std::fs::create_dir_all(&guest.work)?;
    for folder in ["proc", "sys", "dev", "run", "tmp", "root", "etc", "var", "sbin"] {
        guest.archive.folder(folder)?;
    }
    guest.archive.link("var/run", "/run")?;
    guest.programs()?;
    guest.tests(contents)?;
    guest.modules(kernel)?;
    guest.archive.file("init", include_bytes!("init.sh"))?;
    std::fs::remove_dir_all(&guest.work)?;
    guest.archive.finish()?;
    let megabytes = file.metadata()?.len() / 1_000_000;
    note(format_args!("{} ({megabytes} MB)", file.display()));
    Ok(())
}

struct Guest {
    archive: Archive<BufWriter<File>>,
    libraries: BTreeSet<String>,
    /// A folder for what is stripped.
    work: PathBuf,
}

impl Guest {
    fn programs(&mut self) -> Result<()> {
        let busybox = busybox()?;
        self.archive.file("bin/busybox", &std::fs::read(busybox)?)?;
        for applet in APPLETS {
            self.archive.link(&format!("bin/{applet}"), "busybox")?;
        }
        for name in PROGRAMS {
            let program = find_program(name)
                .with_context(|| format!("`{name}` is not on this machine: apt install bash util-linux"))?;
            self.program(&format!("bin/{name}"), &program, "")?;
        }
        self.archive.link("bin/sh", "bash")?;
        for tool in tools::provide_all()? {
            // The guest has WireGuard in its kernel; with this one at hand nobody would notice if it did not.
            if tool.name != "wireguard-go" {
                self.program(&format!("bin/{}", tool.name), &tool.program, &tool.libraries)?;
            }
        }
        Ok(())
    }

    fn tests(&mut self, contents: &Contents<'_>) -> Result<()> {
        for suite in contents.suites {
            let small = self.stripped(&suite.program)?;
            self.program(&format!("vm/tests/{}", suite.name), &small, "")?;
        }
        let edge = paths::target().join("debug/exposer-edge");
        let small = self.stripped(&edge)?;
        // Tests know the daemon by the path at which it was built.
        self.program(&edge.to_string_lossy(), &small, "")?;
        let environment = format!(
            "export EXPOSER_BIN_DIR='{}'\n",
            paths::target().join("debug").display()
        );
        self.archive.file("vm/environment", environment.as_bytes())?;
        let plan: String = contents
            .stories
            .iter()
            .map(|story| format!("{} {} {}\n", story.suite, story.name, contents.patience))
            .collect();
        self.archive.file("vm/plan", plan.as_bytes())
    }

    fn modules(&mut self, kernel: &Kernel) -> Result<()> {
        let mut order = String::new();
        for module in Modules::find(&kernel.modules)?.in_order(WANTED)? {
            self.archive
                .file(&format!("vm/modules/{}.ko", module.name), &module.content)?;
            order.push_str(&format!("{}\n", module.name));
        }
        self.archive.file("vm/modules/order", order.as_bytes())
    }

    /// A copy without debug information, which would fill the guest's memory.
    fn stripped(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().context("a program without a name")?;
        let small = self.work.join(name);
        Cmd::new("strip").arg("-o").arg(&small).arg(program).run()?;
        Ok(small)
    }

    /// Adds a program and the libraries that it is linked with.
    fn program(&mut self, path: &str, program: &Path, library_path: &str) -> Result<()> {
        self.archive.file(path, &std::fs::read(program)?)?;
        let mut ldd = Cmd::new("ldd").arg(program);
        if !library_path.is_empty() {
            ldd = ldd.env("LD_LIBRARY_PATH", library_path);
        }
        for library in linked(&ldd.read()?)? {
            let name = Path::new(&library)
                .file_name()
                .context("a library without a name")?;
            let place = if library.starts_with("/lib64/") {
                library.clone()
            } else {
                format!("{LIBRARIES}/{}", name.to_string_lossy())
            };
            if self.libraries.insert(place.clone()) {
                let content = std::fs::read(&library).with_context(|| format!("can't read {library}"))?;
                self.archive.file(&place, &content)?;
            }
        }
        Ok(())
    }
}

/// The files in what ldd(1) prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn linked(text: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains("=> not found") {
            bail!("a library is missing on this machine: {line}");
        }
        let file = line.split_once("=> ").map_or(line, |(_, file)| file);
        if let Some(file) = file.split(" (0x").next().filter(|file| file.starts_with('/')) {
            files.push(file.to_owned());
        }
    }
    Ok(files)
}

/// busybox without libraries: the machine's if it is Debian's busybox-static, else that one unpacked.
fn busybox() -> Result<PathBuf> {
    const PACKAGE: &str = "busybox-static";
    let dir = paths::cache().join("tools/busybox");
    let _lock = paths::lock(&dir)?;
    let stamp = Stamp::new(&dir, &[PACKAGE]);
    let root = dir.join("root");
    if !stamp.holds() {
        let archive = debian::Archive::open()?;
        let plan = archive.plan(&[debian::Wanted::alone(PACKAGE)])?;
        stamp.clear()?;
        archive.unpack(&plan, &root)?;
        stamp.set()?;
    }
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|file| root.join(file))
        .find(|file| file.is_file())
        .with_context(|| format!("Debian's package {PACKAGE} has no program `busybox`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        assert_eq!(
            linked(text).unwrap(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(linked("\tlibx.so.1 => not found\n").is_err());
    }
}
