//! House rules that no compiler checks: short files, each with its duty in the first line, nothing left undone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// Lines of product code that a file may have; its unit tests are not counted.
const MOST_LINES: usize = 400;

/// What marks work that is not done. Written in halves, so that this file does not find itself.
const UNDONE: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("To be ", "written"),
];

/// Checks every Rust file of the workspace.
///
/// # Errors
///
/// With a line for each offence, as `file:line: offence`.
pub fn check() -> Result<()> {
    let root = paths::root();
    let mut offences = Vec::new();
    for file in rust_files(&root)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(&file);
        let product = !name.iter().any(|part| part == "tests" || part == "fuzz");
        offences.extend(
            offences_of(&text, product)
                .iter()
                .map(|(line, what)| format!("{}:{line}: {what}", name.display())),
        );
    }
    if !offences.is_empty() {
        bail!("{}", offences.join("\n"));
    }
    Ok(())
}

/// What is wrong with one file: line and offence.
fn offences_of(text: &str, product: bool) -> Vec<(usize, String)> {
    let mut offences = Vec::new();
    if !text.starts_with("//!") {
        offences.push((1, "the file does not begin with `//!` and its duty".to_owned()));
    }
    let code = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count();
    if product && code > MOST_LINES {
        offences.push((
            code,
            format!("{code} lines of code, {MOST_LINES} are the most: which is the file's second duty?"),
        ));
    }
    for (index, line) in text.lines().enumerate() {
        if let Some(mark) = UNDONE.iter().find(|mark| line.contains(**mark)) {
            offences.push((index + 1, format!("`{mark}` marks work that is not done")));
        }
    }
    offences
}

/// Every Rust file below `dir`, without build output and hidden folders.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in
            std::fs::read_dir(&dir).with_context(|| format!("can't read the folder {}", dir.display()))?
        {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences(text: &str, product: bool) -> String {
        offences_of(text, product)
            .iter()
            .map(|(line, what)| format!("{line} {what}\n"))
            .collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(offences("//! Duty.\nfn f() {}\n", true), "");
        let tests = format!(
            "//! Duty.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "// x\n".repeat(500)
        );
        assert_eq!(offences(&tests, true), "");
    }

    #[test]
    fn each_offence_is_found_with_its_line() {
        assert!(offences("fn f() {}\n", true).starts_with("1 the file does not begin"));
        let long = format!("//! Duty.\n{}", "// x\n".repeat(400));
        assert!(offences(&long, true).contains("401 lines of code"));
        assert_eq!(offences(&long, false), "");
        for mark in UNDONE {
            assert!(offences(&format!("//! Duty.\n\n{mark})\n"), false).starts_with("3 "));
        }
    }
}
