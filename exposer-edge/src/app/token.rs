//! Reads the token file.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use exposer_common::proto::auth::{MAX_TOKEN, Token};
use tracing::warn;

use super::error::AppError;

/// The token in `path`.
///
/// # Errors
///
/// When the file can't be read or holds no token. A file that others can read is a warning.
pub fn read(path: &Path) -> Result<Token, AppError> {
    let failed = |source| AppError::TokenFile {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        warn!(
            component = "app", path = %path.display(), mode = format!("{:o}", mode & 0o7777),
            "others than the owner may read the token file; run: chmod 600"
        );
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_TOKEN).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Token::from_bytes(&bytes).map_err(|source| AppError::Token {
        path: path.to_owned(),
        source,
    })
}
