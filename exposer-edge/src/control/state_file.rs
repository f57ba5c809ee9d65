//! What survives a restart, as one JSON file.
//!
//! The file is replaced as a whole: written beside, fsynced, renamed, and the folder fsynced. One that can't be
//! understood is set aside with its reason and never deleted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::claim::{SavedService, Wish};
use crate::datapath::ServiceRef;

/// Version of the format. A file with a higher one is set aside.
pub const VERSION: u32 = 1;
/// Name of the file within the state folder.
pub const FILE: &str = "state.json";
/// Largest file that is read, in bytes: far above what [`exposer_common::names::SERVICE_SLOTS`] bindings take.
const MAX_FILE: u64 = 256 << 20;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// [`VERSION`].
    pub version: u32,
    /// The generation that was handed out last.
    pub generation: u32,
    /// Zone numbers by interface name.
    pub zones: BTreeMap<String, u8>,
    /// Services by agent.
    pub agents: BTreeMap<String, SavedAgent>,
    /// Ports of Services whose agent was given up.
    pub remembered: Vec<Remembered>,
}

/// An agent as it was known last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAgent {
    /// For how long it was away while the edge ran, in seconds. Time in which the edge itself was down does not count.
    pub stale_seconds: u64,
    /// Its Services.
    pub services: Vec<SavedService>,
}

/// A port that a Service is to get again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Whose.
    pub service: ServiceRef,
    /// What it asked for.
    pub wish: Wish,
    /// What it had.
    pub public_port: u16,
}

/// Why the state could not be read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// The operating system refused.
    #[error(
        "{action} {path}: {source}; check the owner, the permissions and the free space of the state folder"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state can't be put into JSON.
    #[error("the state can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What [`StateFile::load`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No file: the first start.
    Absent,
    /// A good file.
    State(Box<SavedState>),
    /// A file that can't be used; it was set aside.
    SetAside {
        /// Where it is; none where it could not even be renamed.
        kept: Option<PathBuf>,
        /// Why it can't be used.
        reason: String,
    },
}

/// The state file of one folder.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    /// That of `folder`.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Reads the file. Never fails: what can't be used is set aside, and its reason is for the operator.
    #[must_use]
    pub fn load(&self) -> Loaded {
        match self.read() {
            Ok(None) => Loaded::Absent,
            Ok(Some(state)) => Loaded::State(Box::new(state)),
            Err(reason) => Loaded::SetAside {
                kept: self.set_aside(),
                reason,
            },
        }
    }

    fn read(&self) -> Result<Option<SavedState>, String> {
        let path = self.path();
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if size > MAX_FILE {
            return Err(format!("it has {size} bytes, which no state has"));
        }
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        #[derive(Deserialize)]
        struct Header {
            version: u32,
        }
        let Header { version } =
            serde_json::from_slice(&bytes).map_err(|error| format!("it is damaged: {error}"))?;
        if version != VERSION {
            return Err(format!(
                "it has format version {version}, this edge writes {VERSION}; was it written by a newer edge?"
            ));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("it is damaged: {error}"))
    }

    fn set_aside(&self) -> Option<PathBuf> {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let kept = (0..100_u32)
            .map(|n| match n {
                0 => self.folder.join(format!("{FILE}.damaged-{seconds}")),
                n => self.folder.join(format!("{FILE}.damaged-{seconds}-{n}")),
            })
            .find(|path| !path.exists())?;
        fs::rename(self.path(), &kept).ok().map(|()| kept)
    }

    /// Replaces the file. After it returned, the state is on the disk.
    ///
    /// # Errors
    ///
    /// When the system refused; the file before is untouched then.
    pub fn save(&self, state: &SavedState) -> Result<(), StateError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { action, path, source }
        };
        fs::create_dir_all(&self.folder).map_err(io("create folder", &self.folder))?;
        let bytes = serde_json::to_vec(state)?;
        let mut file = tempfile::Builder::new()
            .prefix(".state-")
            .suffix(".tmp")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)
            .map_err(io("write a file in", &self.folder))?;
        file.write_all(&bytes).map_err(io("write", file.path()))?;
        file.as_file().sync_all().map_err(io("sync", file.path()))?;
        file.persist(self.path())
            .map_err(|error| io("replace", &self.path())(error.error))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io("sync folder", &self.folder))
    }
}
