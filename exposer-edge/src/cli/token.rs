//! `exposer-edge token`: tokens of single agents. Works on files; a running daemon takes changes up within seconds.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::output;
use crate::args::{Output, TokenAction, TokenAdd, TokenArgs};
use crate::control::limits::{Limits, join};
use crate::token_store::{Listed, TokenStore};

/// Makes, lists or revokes.
///
/// # Errors
///
/// In words for the person: a limit that is none, a name that is none, a file that can't be written.
pub fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let store = TokenStore::new(&PathBuf::from(&args.state_dir));
    match &args.action {
        TokenAction::Add(add) => {
            let token = store.add(&add.name, limits(add)?, add.replace, now())?;
            output::line(&token)?;
            explain(&format!(
                "This is the only time that the token is shown. Give it to agent {}: AGENT_NAME={}, and the token in \
                 its TOKEN_FILE. A running edge takes it up within seconds.",
                add.name, add.name
            ));
        }
        TokenAction::List { output: form } => list(&store.list()?, *form)?,
        TokenAction::Revoke { name } => {
            store.revoke(name)?;
            explain(&format!(
                "A running edge closes the Services of agent {name} within seconds. Where there is a token for all \
                 agents (EXPOSER_TOKEN_FILE), it opens that name again."
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was typed, as limits.
fn limits(add: &TokenAdd) -> anyhow::Result<Limits> {
    Ok(Limits {
        namespaces: items("namespace", &add.namespace)?,
        subdomains: items("subdomain", &add.subdomain)?,
        ports: items("ports", &add.ports)?,
        max_ports: add.max_ports,
    })
}

fn items<T: TryFrom<String, Error = String>>(flag: &str, texts: &[String]) -> anyhow::Result<Vec<T>> {
    texts
        .iter()
        .map(|text| T::try_from(text.trim().to_owned()).map_err(|error| anyhow::anyhow!("--{flag}: {error}")))
        .collect()
}

fn list(tokens: &[Listed], form: Output) -> std::io::Result<()> {
    if form == Output::Json {
        return output::json(&tokens);
    }
    let rows = tokens.iter().map(|token| {
        let Limits {
            namespaces,
            subdomains,
            ports,
            max_ports,
        } = &token.limits;
        let age = |made: u64| output::duration(Duration::from_secs(now().saturating_sub(made)));
        [
            token.agent.clone(),
            token.created.map_or_else(|| "?".to_owned(), age),
            join(namespaces),
            join(subdomains),
            join(ports),
            max_ports.map_or_else(|| "any".to_owned(), |most| most.to_string()),
            token.problem.clone().unwrap_or_default(),
        ]
    });
    let headings = [
        "AGENT",
        "AGE",
        "NAMESPACES",
        "SUBDOMAINS",
        "PORTS",
        "MAX PORTS",
        "",
    ];
    output::line(&output::table(headings, rows))
}

/// Words for the person, beside the answer, so that the answer can be piped into a file.
fn explain(text: &str) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
