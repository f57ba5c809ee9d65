//! Reads the tokens: the file with the one for all agents, and the files of single agents, which are followed while the
//! daemon runs.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use exposer_common::proto::auth::{MAX_TOKEN, Token};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::error::AppError;
use crate::control::tokens::Tokens;
use crate::token_store::{Fingerprint, StoreError, TokenStore};

/// How often the files of single agents are looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// Every token: the shared one in `path`, and those of `store`. Without a shared one only agents with their own come
/// in.
///
/// # Errors
///
/// When there is no token at all, or the shared one can't be read.
pub fn read_all(path: &Path, store: &TokenStore) -> Result<(Tokens, Fingerprint), AppError> {
    let found = store.fingerprint()?;
    let shared = match read(path) {
        Ok(token) => Tokens::shared(token),
        Err(AppError::TokenFile { source, .. })
            if source.kind() == ErrorKind::NotFound && !found.is_empty() =>
        {
            info!(
                component = "app", path = %path.display(),
                "there is no token for all agents: only those with a token of their own come in"
            );
            Tokens::default()
        }
        Err(error) => return Err(error),
    };
    Ok((apply(shared, &Tokens::default(), store, &found), found))
}

/// Publishes the tokens anew whenever a file of `store` has changed, until nobody listens. `found` is how the files were
/// when the present ones were read.
pub async fn follow(store: TokenStore, mut found: Fingerprint, publish: watch::Sender<Tokens>) {
    while !publish.is_closed() {
        sleep(PAUSE).await;
        let (reader, former) = (store.clone(), publish.borrow().clone());
        let last = found.clone();
        let read = tokio::task::spawn_blocking(move || reload(&reader, &former, &last)).await;
        match read {
            Ok(Ok(Some((tokens, next)))) => {
                info!(
                    component = "app",
                    action = "reload",
                    agents = next.len(),
                    "tokens have changed"
                );
                found = next;
                publish.send_replace(tokens);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => warn!(component = "app", %error, "tokens can't be read; the known ones stay"),
            Err(error) => warn!(component = "app", %error, "tokens can't be read; the known ones stay"),
        }
    }
}

fn reload(
    store: &TokenStore,
    former: &Tokens,
    last: &Fingerprint,
) -> Result<Option<(Tokens, Fingerprint)>, StoreError> {
    let found = store.fingerprint()?;
    if found == *last {
        return Ok(None);
    }
    Ok(Some((apply(former.shared_only(), former, store, &found), found)))
}

/// Adds the tokens of single agents to `tokens`. A file that can't be used leaves what `former` knew of its agent.
fn apply(mut tokens: Tokens, former: &Tokens, store: &TokenStore, found: &Fingerprint) -> Tokens {
    for (agent, ..) in found {
        match store.read(agent) {
            Ok((token, limits)) => tokens.insert(agent.clone(), token, limits),
            Err(error) => {
                warn!(component = "app", agent, %error, "the token of this agent can't be used");
                tokens.keep(agent.clone(), former);
            }
        }
    }
    tokens
}

/// The token in `path`.
///
/// # Errors
///
/// When the file can't be read or holds no token. A file that others can read is a warning.
fn read(path: &Path) -> Result<Token, AppError> {
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
