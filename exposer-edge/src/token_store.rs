//! Tokens of single agents, one file each: `<state folder>/tokens.d/<agent>.json`, mode 0600.
//!
//! A file holds the secret itself, for a keyed hash can't be checked without it. Files are replaced as a whole. The
//! command line writes them, the running daemon reads them; neither needs the other.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use exposer_common::model::is_dns_label;
use exposer_common::proto::auth::{AuthError, Token, TokenError, fresh_nonce};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::control::limits::Limits;

/// Name of the folder within the state folder.
const FOLDER: &str = "tokens.d";
/// Version of a file's format.
const VERSION: u32 = 1;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A token with its secret, as it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    version: u32,
    token: String,
    created: u64,
    limits: Limits,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Whose.
    pub agent: String,
    /// When it was made, seconds since 1970; none where the file can't be used.
    pub created: Option<u64>,
    /// What it allows.
    pub limits: Limits,
    /// Why the file can't be used, where it can't.
    pub problem: Option<String>,
}

/// What tells whether a file has changed: name, inode, size, time of the last change.
pub type Fingerprint = Vec<(String, u64, u64, i64, i64)>;

/// Why a token can't be read, made or revoked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The name is none.
    #[error(
        "\"{0}\" is no agent's name: a DNS label (a-z, 0-9 and '-', at most 63), as in the agent's AGENT_NAME"
    )]
    Name(String),
    /// It is there.
    #[error("agent {0} has a token; replace it, and its limits, with --replace, or revoke it")]
    Exists(String),
    /// It is not there.
    #[error("agent {0} has no token of its own; see: exposer-edge token list")]
    Absent(String),
    /// The system refused.
    #[error("{action} {path}: {source}; run it as the daemon's user (root), with the daemon's --state-dir")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} can't be used: {problem}; make it anew: exposer-edge token add --replace")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] AuthError),
}

/// The tokens of one state folder.
#[derive(Clone, Debug)]
pub struct TokenStore {
    folder: PathBuf,
}

impl TokenStore {
    /// That of a state folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join(FOLDER),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a token of 256 random bits for `agent` at the time `now` (seconds since 1970), and gives it back: it is
    /// shown once.
    ///
    /// # Errors
    ///
    /// When the agent has one and `replace` is not set, or the file can't be written.
    pub fn add(&self, agent: &str, limits: Limits, replace: bool, now: u64) -> Result<String, StoreError> {
        let path = self.path(agent)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(io("make folder", &self.folder))?;
        let token: String = fresh_nonce()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = Entry {
            version: VERSION,
            token: token.clone(),
            created: now,
            limits,
        };
        let bytes = serde_json::to_vec_pretty(&entry).map_err(|error| StoreError::Damaged {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let mut file = tempfile::Builder::new()
            .prefix(".token-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)
            .map_err(io("write a file in", &self.folder))?;
        file.write_all(&bytes).map_err(io("write", file.path()))?;
        file.as_file().sync_all().map_err(io("sync", file.path()))?;
        let put = if replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        match put {
            Ok(_) => self.sync().map(|()| token),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                Err(StoreError::Exists(agent.to_owned()))
            }
            Err(error) => Err(io("write", &path)(error.error)),
        }
    }

    /// Deletes the token of `agent`.
    ///
    /// # Errors
    ///
    /// When there is none, or the file can't be deleted.
    pub fn revoke(&self, agent: &str) -> Result<(), StoreError> {
        let path = self.path(agent)?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Absent(agent.to_owned())),
            Err(error) => Err(io("delete", &path)(error)),
        }
    }

    /// Every token without its secret, by the agent's name.
    ///
    /// # Errors
    ///
    /// When the folder can't be read; a single file that can't be used is listed with its problem.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let listed = |agent: String| match self.entry(&agent) {
            Ok(entry) => Listed {
                agent,
                created: Some(entry.created),
                limits: entry.limits,
                problem: None,
            },
            Err(error) => Listed {
                agent,
                created: None,
                limits: Limits::default(),
                problem: Some(error.to_string()),
            },
        };
        Ok(self.agents()?.into_iter().map(listed).collect())
    }

    /// The token of `agent` and what it allows.
    ///
    /// # Errors
    ///
    /// When the file can't be read or used.
    pub fn read(&self, agent: &str) -> Result<(Token, Limits), StoreError> {
        let entry = self.entry(agent)?;
        let token = Token::from_bytes(entry.token.as_bytes());
        let damaged = |error: TokenError| self.damaged(agent, error.to_string());
        Ok((token.map_err(damaged)?, entry.limits))
    }

    /// Names of the agents that have a token of their own, in order; none where the folder does not exist.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn agents(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.fingerprint()?.into_iter().map(|file| file.0).collect())
    }

    /// Changes whenever a token does.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, StoreError> {
        let failed = io("read folder", &self.folder);
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            // A state folder that can't even be made stops no start, and has no tokens.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for file in files {
            let file = file.map_err(io("read folder", &self.folder))?;
            let name = file.file_name();
            let agent = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let Some(agent) = agent.filter(|agent| is_dns_label(agent)) else {
                continue;
            };
            // A file that vanished meanwhile is a token that was revoked.
            if let Ok(data) = file.metadata() {
                let (ino, size) = (data.ino(), data.size());
                found.push((agent.to_owned(), ino, size, data.mtime(), data.mtime_nsec()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn entry(&self, agent: &str) -> Result<Entry, StoreError> {
        let path = self.path(agent)?;
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map_err(io("read", &path))?;
        let entry: Entry =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(agent, error.to_string()))?;
        if entry.version != VERSION {
            let problem = format!("it has format version {}, not {VERSION}", entry.version);
            return Err(self.damaged(agent, problem));
        }
        Ok(entry)
    }

    fn damaged(&self, agent: &str, problem: String) -> StoreError {
        StoreError::Damaged {
            path: self.folder.join(format!("{agent}.json")),
            problem,
        }
    }

    fn path(&self, agent: &str) -> Result<PathBuf, StoreError> {
        if !is_dns_label(agent) {
            return Err(StoreError::Name(exposer_common::model::shorten(agent)));
        }
        Ok(self.folder.join(format!("{agent}.json")))
    }

    fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io("sync folder", &self.folder))
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
