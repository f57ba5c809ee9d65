//! Runs the tools that know the ruleset.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::model::Family;
use super::{Firewall, iptables, nft};

/// The tools answer in milliseconds, with very many rules in seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a tool said.
enum Answer {
    Text(String),
    /// It is not installed.
    Missing,
    Failed(String),
}

async fn run(program: &str, arguments: &[&str]) -> Answer {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, child).await {
        Ok(Ok(output)) if output.status.success() => match String::from_utf8(output.stdout) {
            Ok(text) => Answer::Text(text),
            Err(error) => Answer::Failed(format!("{program}: {error}")),
        },
        Ok(Ok(output)) => {
            let error = String::from_utf8_lossy(&output.stderr);
            Answer::Failed(format!(
                "{program} failed: {}",
                error.lines().next().unwrap_or("without a word")
            ))
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Answer::Missing,
        Ok(Err(error)) => Answer::Failed(format!("{program} can't be started: {error}")),
        Err(_) => Answer::Failed(format!("{program} does not end within {} s", PATIENCE.as_secs())),
    }
}

pub(super) async fn read() -> Firewall {
    let mut firewall = Firewall::default();
    let opaque = read_nft(&mut firewall).await;
    for (family, save, legacy, names) in [
        (
            Family::Ip,
            "iptables-save",
            "iptables-legacy-save",
            "/proc/net/ip_tables_names",
        ),
        (
            Family::Ip6,
            "ip6tables-save",
            "ip6tables-legacy-save",
            "/proc/net/ip6_tables_names",
        ),
    ] {
        // Tables that nft can't show; all of them where there is no nft.
        let wanted = |name: &str| {
            opaque
                .as_ref()
                .is_none_or(|list| list.contains(&(family, name.to_owned())))
        };
        if opaque
            .as_ref()
            .is_none_or(|list| list.iter().any(|(of, _)| *of == family))
        {
            read_iptables(&mut firewall, family, save, &wanted).await;
        }
        // The kernel lists the legacy tables that are in use; nft never shows them.
        if std::fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty()) {
            read_iptables(&mut firewall, family, legacy, &|_| true).await;
        }
    }
    firewall
}

/// The tables that nft could not show; none where nft itself could not be asked.
async fn read_nft(firewall: &mut Firewall) -> Option<Vec<(Family, String)>> {
    match run("nft", &["-j", "list", "ruleset"]).await {
        // Some versions say nothing where there is no rule.
        Answer::Text(text) if text.trim().is_empty() => Some(Vec::new()),
        Answer::Text(text) => match nft::parse(&text) {
            Ok(parsed) => {
                firewall.tables.extend(parsed.tables);
                Some(parsed.opaque)
            }
            Err(error) => {
                firewall.notes.push(error.to_string());
                None
            }
        },
        Answer::Missing => {
            firewall.notes.push(
                "nft is not installed, so nftables rules can't be read: apt install nftables".to_owned(),
            );
            None
        }
        Answer::Failed(why) => {
            firewall.notes.push(why);
            None
        }
    }
}

async fn read_iptables(
    firewall: &mut Firewall,
    family: Family,
    program: &str,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) {
    match run(program, &[]).await {
        Answer::Text(text) => {
            let tables = iptables::parse(family, &text);
            firewall
                .tables
                .extend(tables.into_iter().filter(|table| wanted(&table.name)));
        }
        // Without the tool there are no such tables, unless something else made them.
        Answer::Missing => {}
        Answer::Failed(why) => firewall.notes.push(why),
    }
}
