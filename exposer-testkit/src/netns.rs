//! Network namespaces named after their test, and threads, tasks and commands inside them.
//!
//! A namespace is called `xpo-TEST-ROLE-PID-N` and stands under `/run/netns`, so that `ip netns` and `nsenter` find it.
//! It is deleted when its guard is dropped; those of killed runs are swept by the next run, if their claim proves
//! that this crate made them and that their maker is dead.
//!
//! Commands enter by setns(2) before exec, not by `ip netns exec`, which mounts a fresh /sys and so hides every bpffs.

mod sweep;

use std::ffi::CString;
use std::fs::{self, File};
use std::future::Future;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::claim::Claim;
use crate::tools;

const KIND: &str = "netns";
const FOLDER: &str = "/run/netns";
/// Environment variable of every command that this crate starts: names its namespace, so that a sweep ends only what
/// this crate started and never the shell of a person who looks into a leftover.
const MARK: &str = "EXPOSER_TESTKIT_NETNS";

/// Numbers the namespaces of this process, so that two tests of one name do not collide.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of ours; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    handle: Handle,
    _claim: Claim,
}

/// A way into a namespace that can be cloned and sent to threads. It does not keep the name alive.
#[derive(Clone, Debug)]
pub struct Handle {
    name: String,
    file: Arc<File>,
    /// Private bind mounts (source, target) that commands see.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Netns {
    /// Makes the namespace of `role` in `test` (both: lower-case words), its loopback up.
    ///
    /// # Errors
    ///
    /// No privilege, or no `ip`.
    pub fn new(test: &str, role: &str) -> Result<Self> {
        sweep::sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xpo-{test}-{role}-{}-{number}", std::process::id());
        let claim = Claim::new(KIND, &name)?;
        tools::run(Command::new(tools::find("ip")?).args(["netns", "add", &name]))
            .context("cannot make a network namespace: root (CAP_SYS_ADMIN) is needed")?;
        let path = Path::new(FOLDER).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        claim.note(&file.metadata()?.ino().to_string())?;
        let handle = Handle {
            name,
            file: Arc::new(file),
            mounts: Vec::new(),
        };
        let this = Self {
            handle,
            _claim: claim,
        };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// Lets commands of this namespace see `source` in the place of the folder `target` (which is made if missing),
    /// in a mount namespace of each command's own.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub fn private_mount(&mut self, source: &Path, target: &Path) -> Result<()> {
        fs::create_dir_all(source).with_context(|| format!("cannot make {}", source.display()))?;
        fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
        self.handle.mounts.push((source.to_owned(), target.to_owned()));
        Ok(())
    }

    /// A way in that threads can own.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl std::ops::Deref for Netns {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if thread::panicking() {
            say(&format!(
                "namespace {} (gone now; run again to enter it): {}",
                self.name,
                self.enter_hint()
            ));
        }
        delete(&self.handle.name);
    }
}

impl Handle {
    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How a person enters it.
    #[must_use]
    pub fn enter_hint(&self) -> String {
        format!("nsenter --net={FOLDER}/{}", self.name)
    }

    /// Makes the calling thread a member of the namespace. Threads that it starts from then on are members too.
    ///
    /// # Errors
    ///
    /// No privilege.
    pub fn enter_this_thread(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Runs `work` on a thread inside the namespace and waits for its result.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or `work` failed.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter_this_thread()?;
                work()
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a future on a current-thread runtime inside the namespace: every task and socket of it is a member.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or the future failed.
    pub fn run_async<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(work())
        })
    }

    /// Starts a thread inside the namespace that outlives this call.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let handle = self.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                handle.enter_this_thread()?;
                work()
            })
            .context("cannot start a thread")
    }

    /// The folder that commands inside see as `target`: the source of its private mount, if it has one.
    #[must_use]
    pub fn seen_from_outside(&self, target: &Path) -> PathBuf {
        self.mounts
            .iter()
            .find(|(_, to)| to == target)
            .map_or_else(|| target.to_owned(), |(source, _)| source.clone())
    }

    /// A command that will run inside the namespace, with the private mounts of [`Netns::private_mount`].
    ///
    /// # Errors
    ///
    /// The program is not found ([`tools::find`]), or a mount path holds a NUL.
    pub fn command(&self, program: &str) -> Result<Command> {
        let program = if program.contains('/') {
            PathBuf::from(program)
        } else {
            tools::find(program)?
        };
        let mut command = Command::new(program);
        command.env(MARK, &self.name);
        let file = Arc::clone(&self.file);
        let mounts = self
            .mounts
            .iter()
            .map(|(source, target)| Ok((c_path(source)?, c_path(target)?)))
            .collect::<Result<Vec<_>>>()?;
        let enter = move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            if !mounts.is_empty() {
                enter_mounts(&mounts)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only (setns, unshare, mount) on values that
        // were prepared before the fork; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// Runs `ip` with these words inside the namespace.
    ///
    /// # Errors
    ///
    /// The command failed; the text holds it and what it printed.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new(tools::find("ip")?);
        command
            .args(["-n", &self.name])
            .args(words.split_ascii_whitespace());
        tools::stdout(&mut command)
    }

    /// Sets a sysctl of the namespace, its key with dots or slashes (`net.ipv4.ip_forward`).
    ///
    /// # Errors
    ///
    /// No such key below `net`, or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        if !path.starts_with("/proc/sys/net") {
            bail!("{key} is not a sysctl of a network namespace");
        }
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("cannot set {key} to {value} in {}", self.name))
        })
    }

    /// Joins this namespace and `other` by a veth pair: `name` here, `peer` there, both up.
    ///
    /// # Errors
    ///
    /// A name is taken or too long (15 bytes).
    pub fn connect(&self, name: &str, other: &Self, peer: &str) -> Result<()> {
        self.ip(&format!(
            "link add {name} type veth peer name {peer} netns {}",
            other.name
        ))?;
        self.ip(&format!("link set {name} up"))?;
        other.ip(&format!("link set {peer} up"))?;
        Ok(())
    }

    /// One counter of `/proc/net/snmp` or `/proc/net/netstat`, for example (`Tcp`, `OutRsts`).
    ///
    /// # Errors
    ///
    /// No such counter.
    pub fn counter(&self, group: &str, field: &str) -> Result<u64> {
        let text = self.run(|| {
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp")?;
            Ok(snmp + &fs::read_to_string("/proc/thread-self/net/netstat")?)
        })?;
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            bail!("the kernel has no counters {group}");
        };
        names
            .split(' ')
            .zip(values.split(' '))
            .find(|(name, _)| *name == field)
            .and_then(|(_, value)| value.parse().ok())
            .with_context(|| format!("the kernel has no counter {group} {field}"))
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a NUL", path.display()))
}

/// Moves the calling process into a mount namespace of its own that still follows the host's (un)mounts, and lays the
/// private mounts over it. Only system calls: it runs between fork and exec.
fn enter_mounts(mounts: &[(CString, CString)]) -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    for (source, target) in mounts {
        mount(
            Some(source.as_c_str()),
            target.as_c_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
    }
    Ok(())
}

fn delete(name: &str) {
    if let Ok(ip) = tools::find("ip") {
        let _ = tools::run(Command::new(ip).args(["netns", "del", name]));
    }
}

/// Prints a line for the person who reads a failed test.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
