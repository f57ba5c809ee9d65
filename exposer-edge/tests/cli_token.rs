//! `exposer-edge token`: made, listed and revoked, without a daemon and without root.
#![expect(
    clippy::expect_used,
    reason = "test code: a failed expectation is a failed test"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use exposer_edge::token_store::TokenStore;

fn token(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exposer-edge"))
        .arg("token")
        .args(arguments)
        .env("EXPOSER_STATE_DIR", folder)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_token_is_shown_once_kept_0600_listed_without_its_secret_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let limits = [
        "--ports",
        "80,20000-20099",
        "--namespace",
        "games",
        "--max-ports",
        "4",
    ];
    let added = token(&state, &[&["add", "cabin"][..], &limits[..]].concat());
    assert!(added.status.success(), "{}", text(&added.stderr));
    let secret = text(&added.stdout).trim().to_owned();
    assert_eq!(secret.len(), 64, "256 bits in hexadecimal: {secret}");
    assert!(
        text(&added.stderr).contains("only time"),
        "{}",
        text(&added.stderr)
    );

    let file = state.join("tokens.d/cabin.json");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    TokenStore::new(&state)
        .read("cabin")
        .expect("the daemon can use it");

    let again = token(&state, &["add", "cabin"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("--replace"),
        "{}",
        text(&again.stderr)
    );
    let replaced = token(&state, &["add", "cabin", "--replace"]);
    assert_ne!(text(&replaced.stdout).trim(), secret);
    assert_eq!(mode(&file), 0o600);

    for form in ["table", "json"] {
        let listed = text(&token(&state, &["list", "--output", form]).stdout);
        assert!(listed.contains("cabin"), "{listed}");
        assert!(
            !listed.contains(text(&replaced.stdout).trim()),
            "{form} shows the token"
        );
    }
    assert!(token(&state, &["revoke", "cabin"]).status.success());
    assert!(!file.exists());
    let gone = token(&state, &["revoke", "cabin"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        text(&gone.stderr).contains("token list"),
        "{}",
        text(&gone.stderr)
    );
}

#[test]
fn names_and_limits_that_are_none_make_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["add", "../escape"][..],
        &["add", "Cabin"],
        &["add", "cabin", "--ports", "0"],
        &["add", "cabin", "--ports", "http"],
        &["add", "cabin", "--subdomain", "a*b*"],
        &["revoke", "../token"],
    ] {
        let output = token(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    let made = TokenStore::new(folder.path()).agents().unwrap();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_damaged_file_is_listed_with_its_problem() {
    let folder = tempfile::tempdir().unwrap();
    assert!(token(folder.path(), &["add", "cabin"]).status.success());
    std::fs::write(folder.path().join("tokens.d/cabin.json"), "{").unwrap();
    let listed = text(&token(folder.path(), &["list"]).stdout);
    assert!(
        listed.contains("can't be used") && listed.contains("--replace"),
        "{listed}"
    );
}
