//! Real processes inside namespaces: started, logged to a file, ended by their id, shown when something fails.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::interrupt;
use crate::netns::say;
use crate::tools;

/// How many lines of a log are shown when something fails.
const TAIL: usize = 40;
/// How long a process may take to end after SIGTERM before it is killed, when its guard is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that we started; ended when dropped, and its log shown if that happens in a panic.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`, its output appended to `log`.
    ///
    /// # Errors
    ///
    /// The log cannot be opened or the program not started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .with_context(|| format!("cannot open the log {}", log.display()))
        };
        // SAFETY: between fork and exec the closure makes one system call, on a value of its own.
        unsafe {
            // The standard library lets a child inherit the signals that its parent blocks (the demo blocks SIGTERM to
            // wait for it on one thread): a daemon that inherits them would never hear of its end.
            command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
        }
        let child = command
            // A group of its own: Ctrl-C in a terminal reaches us alone, and we end it in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", tools::show(&command)))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything that it has printed, also before a restart with the same log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log, with its name above.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.name, &self.log)
    }

    /// Whether it runs; the error says how it ended.
    ///
    /// # Errors
    ///
    /// It has ended: the text holds the status and the end of the log.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for a child's state")? {
            None => Ok(()),
            Some(status) => Err(Final(format!("{} has ended ({status})\n{}", self.name, self.tail())).into()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id out of range")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends it a signal and waits until it has ended.
    ///
    /// # Errors
    ///
    /// It goes on after `patience`.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(signal)?;
        let deadline = Deadline::after(patience);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if deadline.passed() {
                bail!(
                    "{} goes on {patience:?} after {signal}\n{}",
                    self.name,
                    self.tail()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end(Signal::SIGTERM, PATIENCE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            say(&self.tail());
        }
    }
}

/// The end of a log file under a line with its name.
#[must_use]
pub fn tail(name: &str, log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .iter()
        .skip(lines.len().saturating_sub(TAIL))
        .copied()
        .collect::<Vec<_>>();
    format!("--- last lines of {name} ({})\n{}", log.display(), end.join("\n"))
}

/// A point in time that waits compare with.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    patience: Duration,
}

impl Deadline {
    /// A deadline `patience` from this moment.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        Self {
            start: Instant::now(),
            patience,
        }
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.start.elapsed() > self.patience
    }

    /// How long it has been running.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A failure that no waiting mends: [`wait_until`] ends with it at once.
#[derive(Debug)]
pub struct Final(pub String);

impl std::fmt::Display for Final {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Final {}

/// The longest pause between two probes of [`wait_until`].
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` again and again, first every millisecond, later every 20, until it yields a value, and returns it with the time that it took.
///
/// # Errors
///
/// `patience` passed: the text says what was awaited and why the last probe failed; or a probe failed with [`Final`].
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let deadline = Deadline::after(patience);
    let mut pause = Duration::from_millis(1);
    loop {
        interrupt::check()?;
        match probe() {
            Ok(value) => return Ok((value, deadline.elapsed())),
            Err(error) if error.is::<Final>() => return Err(error.context(format!("waiting for {what}"))),
            Err(error) if deadline.passed() => {
                return Err(error.context(format!("waited {patience:?} in vain for {what}")));
            }
            Err(_) => {
                thread::sleep(pause);
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Where one of the project's own binaries is: in `EXPOSER_BIN_DIR`, else beside the running one (Cargo's folder).
///
/// # Errors
///
/// It is nowhere: the text says how to build it.
pub fn project_binary(name: &str) -> Result<PathBuf> {
    let mut folders = Vec::new();
    if let Some(folder) = std::env::var_os("EXPOSER_BIN_DIR") {
        folders.push(PathBuf::from(folder));
    } else {
        let exe = std::env::current_exe().context("cannot find the running program")?;
        // Cargo puts tests into target/debug/deps, binaries into target/debug.
        folders.extend(exe.ancestors().skip(1).take(2).map(Path::to_owned));
    }
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "the binary {name} is not in {folders:?}: run this through `cargo xtask test` or `cargo xtask demo`, \
                 or build it (cargo build --workspace) and set EXPOSER_BIN_DIR to its folder"
            )
        })
}
