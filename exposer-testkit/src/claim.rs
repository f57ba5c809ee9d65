//! Marks of ownership: who made a namespace or a mount, so that leftovers of dead runs can be swept and nothing else
//! is ever touched.
//!
//! A claim is a small file `/run/exposer-testkit/KIND/NAME` that holds the process id of its maker and the time at
//! which that process started (so that a reused process id is not mistaken for the maker), and a free note.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Where claims are kept. It is a tmpfs: a reboot takes both the claims and what they stand for.
const ROOT: &str = "/run/exposer-testkit";

/// What every folder of ours is called.
const PREFIX: &str = "xpo-";

/// Makes and claims a temporary folder `xpo-TEST-…`, readable by its maker alone.
///
/// # Errors
///
/// The temporary folder or `/run` cannot be written.
pub fn folder(kind: &str, test: &str) -> Result<(PathBuf, Claim)> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{test}-"))
        .tempdir()
        .context("cannot make a temporary folder")?;
    let name = folder.path().file_name().context("a folder without a name")?;
    let claim = Claim::new(kind, &name.to_string_lossy())?;
    claim.note(&folder.path().to_string_lossy())?;
    Ok((folder.keep(), claim))
}

/// A mark that this process made something; removed when dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
}

/// A mark whose maker is dead.
#[derive(Debug)]
pub struct Leftover {
    /// The name that was claimed.
    pub name: String,
    /// The note beside it.
    pub note: String,
    path: PathBuf,
}

/// Process id and start time: together they name one process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maker {
    pid: u32,
    started: u64,
}

impl Maker {
    fn this() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("cannot read the start time of this process from /proc")?;
        Ok(Self { pid, started })
    }

    fn lives(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Start time of a process in clock ticks since boot: field 22 of proc_pid_stat(5). None if there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

impl Claim {
    /// Claims `name` among things of `kind` for this process.
    ///
    /// # Errors
    ///
    /// The name is claimed already, or `/run` cannot be written (root is needed).
    pub fn new(kind: &str, name: &str) -> Result<Self> {
        let folder = Path::new(ROOT).join(kind);
        fs::create_dir_all(&folder).with_context(|| {
            format!(
                "cannot make {}: the tests that need privilege run as root",
                folder.display()
            )
        })?;
        let path = folder.join(name);
        if path.exists() {
            bail!("{kind} {name} is claimed already ({})", path.display());
        }
        let claim = Self { path };
        claim.note("")?;
        Ok(claim)
    }

    /// Writes a note beside the claim, replacing the one before.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn note(&self, note: &str) -> Result<()> {
        let Maker { pid, started } = Maker::this()?;
        fs::write(&self.path, format!("{pid} {started} {note}\n"))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Leftover {
    /// The folder that was claimed, if the note is the path of one that [`folder`] makes: a damaged note must not lead
    /// to somebody else's folder.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let path = PathBuf::from(&self.note);
        let named = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy() == self.name);
        (named && self.name.starts_with(PREFIX) && path.is_absolute()).then_some(path)
    }

    /// Forgets the mark, after what it stood for is gone.
    pub fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Every claim of `kind` whose maker is dead.
#[must_use]
pub fn leftovers(kind: &str) -> Vec<Leftover> {
    let Ok(entries) = fs::read_dir(Path::new(ROOT).join(kind)) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| dead(entry.path())).collect()
}

fn dead(path: PathBuf) -> Option<Leftover> {
    let text = fs::read_to_string(&path).ok()?;
    let mut words = text.trim_end().splitn(3, ' ');
    let pid = words.next()?.parse().ok()?;
    let started = words.next()?.parse().ok()?;
    let note = words.next().unwrap_or_default().to_owned();
    if (Maker { pid, started }).lives() {
        return None;
    }
    let name = path.file_name()?.to_str()?.to_owned();
    Some(Leftover { name, note, path })
}
