//! The token file and the state folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use exposer_common::proto::auth::Token;

use super::report::Row;
use crate::config::Config;
use crate::token_store::TokenStore;

pub(super) fn rows(config: &Config) -> Vec<Row> {
    vec![
        token(&config.token_file, &config.state_dir),
        state_dir(&config.state_dir),
    ]
}

fn token(path: &Path, state_dir: &Path) -> Row {
    let row = Row::new("token-file");
    let shown = path.display();
    let make =
        format!("make one: (umask 077; openssl rand -hex 32 > {shown}), and give the agent the same token");
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let own = TokenStore::new(state_dir).agents().unwrap_or_default();
            return if error.kind() == std::io::ErrorKind::NotFound && !own.is_empty() {
                row.ok(format!(
                    "no {shown}, but tokens of {} agents (exposer-edge token list)",
                    own.len()
                ))
            } else {
                row.fail(format!("{shown}: {error}"), make)
            };
        }
    };
    if let Err(error) = Token::from_bytes(&bytes) {
        return row.fail(format!("{shown}: {error}"), make);
    }
    match std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777) {
        Ok(mode) if mode & 0o077 != 0 => row.warn(
            format!("{shown} has mode {mode:04o}: others than its owner may read it"),
            format!("chmod 600 {shown}"),
        ),
        Ok(mode) => row.ok(format!("{shown}, mode {mode:04o}")),
        Err(error) => row.fail(format!("{shown}: {error}"), make),
    }
}

fn state_dir(path: &Path) -> Row {
    let row = Row::new("state-dir");
    let shown = path.display();
    // A missing folder is made by systemd (StateDirectory=) or by the daemon, in the nearest one that exists.
    let existing = path
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(existing) {
        Ok(_) if existing == path => row.ok(format!("{shown} is writable")),
        Ok(_) => row.ok(format!("{shown} does not exist yet and can be made")),
        Err(error) => row.warn(
            format!("{shown} can't be written: {error}"),
            "Services lose their ports over a restart: run as root, or make the folder and give it to the daemon's user",
        ),
    }
}
