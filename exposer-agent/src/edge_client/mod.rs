//! The edge side of the agent: for each edge one task, which keeps one session alive.
//!
//! ```text
//! run ─► connect ─► drive(session) ─► ending ─► backoff ─► connect …
//! ```
//!
//! | file | duty |
//! |---|---|
//! | [`session`] | the conversation, without I/O |
//! | [`event`] | what goes into it and what comes out |
//! | [`sync`] | what the edge was told, and what it has to be told |
//! | [`ending`] | why it ended, and how soon to try again |
//! | [`backoff`] | how long to wait |
//! | [`connection`] | sockets: connecting, and carrying bytes between a socket and a session |
//! | [`report`] | outcomes on their way to the log and to the Kubernetes side |

pub mod backoff;
pub mod connection;
pub mod ending;
pub mod event;
pub mod report;
pub mod session;
pub mod sync;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use exposer_common::proto::auth::{AuthError, MAX_TOKEN, Token, fresh_nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::config::ServerAddr;
use crate::desired::{DesiredReceiver, OutcomesSender};
use crate::readiness::Readiness;
use backoff::Backoff;
use connection::{Context, connect, drive};
use ending::Ending;
use report::Reporter;
use session::{Identity, Session};
use sync::Position;

/// What one edge's task needs.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    /// Where the edge is.
    pub server: ServerAddr,
    /// Who we are.
    pub identity: Identity,
    /// Where the token is; read anew for each connection, so that a new Secret needs no restart.
    pub token_file: PathBuf,
}

/// Keeps one edge in the picture until `shutdown`.
pub async fn run(
    settings: EdgeSettings,
    desired: DesiredReceiver,
    outcomes: OutcomesSender,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let edge = settings.server.to_string();
    let mut backoff = Backoff::default();
    let mut position = Position {
        epoch: random(),
        revision: 0,
    };
    let mut context = Context {
        reporter: Reporter::new(edge.clone(), outcomes),
        desired,
        readiness,
        shutdown: shutdown.clone(),
        welcomed: None,
        edge: edge.clone(),
    };
    loop {
        context.welcomed = None;
        let ending = attempt(&settings, &mut position, &mut context).await;
        if let Some(since) = context.welcomed.take() {
            backoff.session_ended(since.elapsed());
        }
        if matches!(ending, Ending::ShuttingDown) {
            debug!(
                component = "edge_client",
                edge,
                action = "stop",
                "the session is closed"
            );
            return;
        }
        let wait = backoff.next(ending.pace(), random());
        tell(&edge, &ending, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One connection, from the token to the end.
async fn attempt(settings: &EdgeSettings, position: &mut Position, context: &mut Context) -> Ending {
    let token = match read_token(&settings.token_file).await {
        Ok(token) => token,
        Err(ending) => return ending,
    };
    // A session that is up sees the shutdown itself, and says goodbye.
    let connecting = tokio::select! {
        connecting = connect(&settings.server) => connecting,
        () = context.shutdown.cancelled() => Err(Ending::ShuttingDown),
    };
    let stream = match connecting {
        Ok(stream) => stream,
        Err(ending) => return ending,
    };
    let nonce = match fresh_nonce() {
        Ok(nonce) => nonce,
        Err(error) => return error.into(),
    };
    let mut session = Session::new(&settings.identity, token, nonce, *position, Instant::now());
    let ending = drive(stream, &mut session, context).await;
    *position = session.position();
    ending
}

async fn read_token(path: &Path) -> Result<Token, Ending> {
    let failed = |source| Ending::TokenFile {
        path: path.display().to_string(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    // One byte more than a token may have shows that the file is too long, without reading all of it.
    let limit = u64::try_from(MAX_TOKEN).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).await.map_err(failed)?;
    Token::from_bytes(&bytes).map_err(|source| Ending::Token {
        path: path.display().to_string(),
        source,
    })
}

fn tell(edge: &str, ending: &Ending, wait: Duration) {
    let retry_in = humantime::format_duration(Duration::from_millis(
        u64::try_from(wait.as_millis()).unwrap_or(0),
    ));
    if ending.needs_somebody() {
        error!(component = "edge_client", edge, action = "retry", %retry_in, "{ending}");
    } else {
        warn!(component = "edge_client", edge, action = "retry", %retry_in, "{ending}");
    }
}

/// For epochs and waits. Should the generator fail, the clock does: neither is a secret.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthError::NoRandom)
    {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| u64::try_from(since.as_nanos()).unwrap_or(1)),
    }
}
