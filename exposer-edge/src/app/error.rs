//! Why the daemon can't start or go on.

use std::path::PathBuf;

use exposer_common::proto::auth::TokenError;
use thiserror::Error;

use crate::admin::AdminError;

/// What ended the daemon, or kept it from starting.
#[derive(Debug, Error)]
pub enum AppError {
    /// The token file can't be read.
    #[error(
        "token file {path}: {source}; make one with: (umask 077; openssl rand -hex 32 > {path}), and give the agent \
         the same token"
    )]
    TokenFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token file holds no token.
    #[error("token file {path}: {source}")]
    Token {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// The tokens of single agents can't be read: who may come in is not known.
    #[error(transparent)]
    Tokens(#[from] crate::token_store::StoreError),
    /// Another edge works with the same state.
    #[error(
        "another exposer-edge holds {path}; stop it first (systemctl stop exposer-edge), or give this one its own \
         --state-dir"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The kernel path was demanded and can't be had.
    #[error(
        "the kernel path can't be used: {0}; run `exposer-edge check` for what is missing, or start with --datapath auto"
    )]
    Kernel(String),
    /// The admin API can't listen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The thread of the datapaths ended by itself.
    #[error(
        "the datapath's thread has ended by itself: this is a bug, please report it with the log before it"
    )]
    DatapathEnded,
    /// All zone numbers are in use.
    #[error(
        "no zone number is left for interface {0}; remove old interface names from \"zones\" in the state file"
    )]
    Zones(String),
    /// A signal handler or a thread can't be made.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
