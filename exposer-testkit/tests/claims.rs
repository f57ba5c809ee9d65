//! Marks of ownership tell the living from the dead; needs root, because they are kept below /run.

use std::fs;
use std::path::PathBuf;

use exposer_testkit::claim::{Claim, folder, leftovers};

fn file(name: &str) -> PathBuf {
    PathBuf::from("/run/exposer-testkit/test").join(name)
}

#[test]
fn a_living_claim_is_no_leftover_and_goes_with_its_guard() {
    let name = format!("claim-test-{}", std::process::id());
    let claim = Claim::new("test", &name).unwrap();
    assert!(Claim::new("test", &name).is_err(), "claimed twice");
    assert!(leftovers("test").iter().all(|left| left.name != name));
    drop(claim);
    assert!(!file(&name).exists());
}

#[test]
fn a_claim_of_a_reused_process_id_is_a_leftover() {
    let name = format!("claim-reused-{}", std::process::id());
    let claim = Claim::new("test", &name).unwrap();
    fs::write(file(&name), format!("{} 1 a note\n", std::process::id())).unwrap();
    let left = leftovers("test")
        .into_iter()
        .find(|left| left.name == name)
        .unwrap();
    assert_eq!(left.note, "a note");
    assert_eq!(left.folder(), None, "a note that is no folder of ours");
    left.forget();
    drop(claim);
    assert!(!file(&name).exists());
}

#[test]
fn a_damaged_note_leads_to_nobody_else_s_folder() {
    let (path, claim) = folder("test", "damaged").unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    for (note, ours) in [
        (path.to_str().unwrap(), true),
        ("/etc", false),
        ("", false),
        (&name, false),
    ] {
        fs::write(file(&name), format!("{} 1 {note}\n", std::process::id())).unwrap();
        let left = leftovers("test")
            .into_iter()
            .find(|left| left.name == name)
            .unwrap();
        assert_eq!(left.folder().is_some(), ours, "{note}");
    }
    drop(claim);
    fs::remove_dir(path).unwrap();
}
