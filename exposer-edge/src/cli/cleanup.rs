//! `exposer-edge cleanup`: takes away what outlives the daemon: attached programs and pinned maps.
//!
//! It ends every connection of the kernel path, so it asks first. Exit status: 0 done, or nothing to do; 1 refused, or
//! something could not be removed.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use super::output;
use crate::args::CleanupArgs;
use crate::datapath::kernel::cleanup::{Removed, cleanup};

/// Detaches and removes, after a confirmation.
///
/// # Errors
///
/// When nobody confirms, or the interfaces can't be listed.
pub fn run(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    let bpffs = Path::new(&args.bpffs.bpffs);
    let interfaces = interfaces()?;
    let planned = cleanup(bpffs, &interfaces, true);
    if args.dry_run {
        output::line(&render("Would remove", &planned))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed(&planned)? {
        bail!("nothing was removed");
    }
    let removed = cleanup(bpffs, &interfaces, false);
    output::line(&render("Removed", &removed))?;
    Ok(if removed.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Names of every interface of this network namespace: each may hold a filter of ours.
fn interfaces() -> anyhow::Result<Vec<String>> {
    let listed = nix::net::if_::if_nameindex()?;
    Ok(listed
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect())
}

/// Asks at the terminal. Without one there is nobody to ask.
fn confirmed(planned: &Removed) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "this ends every connection of the kernel path; say --yes to do it, or --dry-run to see what it would remove"
        );
    }
    output::line(&render("Would remove", planned))?;
    let mut out = io::stdout().lock();
    write!(
        out,
        "This ends every connection of the kernel path. Go on? [y/N] "
    )?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn render(what: &str, removed: &Removed) -> String {
    if removed.is_empty() {
        return "Nothing of Exposer is pinned or attached by a filter.".to_owned();
    }
    let Removed {
        links,
        maps,
        filters,
        failed,
    } = removed;
    let mut lines = vec![format!("{what}:")];
    let paths = |kind: &str, paths: &[std::path::PathBuf]| -> Vec<String> {
        paths
            .iter()
            .map(|path| format!("  {kind} {}", path.display()))
            .collect()
    };
    lines.extend(filters.iter().map(|filter| format!("  filter {filter}")));
    lines.extend(paths("link", links));
    lines.extend(paths("map", maps));
    if !failed.is_empty() {
        lines.push("FAILED:".to_owned());
        lines.extend(failed.iter().map(|failure| format!("  {failure}")));
    }
    lines.join("\n")
}
