//! What survives a restart, and what becomes of a state file that can't be used.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use exposer_common::model::Protocol;
use exposer_edge::control::core::Core;
use exposer_edge::control::ports::ReservedPorts;
use exposer_edge::control::state_file::{FILE, Loaded, SavedState, StateError, StateFile, VERSION};

use super::support::{Agent, Edge, STALE_AFTER, of, port, record, settings, tcp};

fn folder() -> (tempfile::TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state"));
    (folder, file)
}

/// An edge that has run, with one Service on its port and one that was moved.
fn ran() -> (Edge, SavedState) {
    let mut edge = Edge::new();
    edge.core.zone("eth0");
    edge.core.zone("wg0");
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(
        &mut edge,
        vec![
            record("web", 1, vec![port(80, "tcp")]),
            record("late", 2, vec![port(80, "tcp+udp")]),
        ],
    );
    assert!(edge.saves > 0);
    let state = edge.core.saved_state(edge.now);
    (edge, state)
}

fn restart(state: SavedState, reserved: ReservedPorts) -> Edge {
    let mut core = Core::new(settings(), reserved);
    core.restore(state, std::time::Instant::now());
    Edge::over(core)
}

fn load(file: &StateFile) -> SavedState {
    match file.load() {
        Loaded::State(state) => *state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_is_served_again_before_any_agent_connects() {
    let (_folder, file) = folder();
    let (before, state) = ran();
    file.save(&state).unwrap();
    let mut after = restart(load(&file), ReservedPorts::new());
    assert_eq!(
        after.datapath.served(),
        before.datapath.served(),
        "ports, indexes, generations and backends"
    );
    assert_eq!(
        (
            after.core.zone("wg0"),
            after.core.zone("eth0"),
            after.core.zone("wg1")
        ),
        (Some(2), Some(1), Some(3))
    );
    let view = after.core.view_agents(after.now);
    assert!(view[0].peer.is_none() && view[0].expires_in.is_some(), "{view:?}");
    // The agent comes back with the same: nothing is touched.
    after.datapath.clear_calls();
    let mut agent = Agent::connect(&mut after, "home");
    let outcomes = agent.snapshot(
        &mut after,
        vec![
            record("web", 1, vec![port(80, "tcp")]),
            record("late", 2, vec![port(80, "tcp+udp")]),
        ],
    );
    assert_eq!(after.datapath.calls(), []);
    let moved = of(&outcomes["late"], 80, Protocol::Udp);
    assert!(
        moved
            .refused
            .unwrap()
            .text
            .contains("belongs to Service games/web")
    );
}

#[test]
fn the_grace_period_goes_on_where_it_was() {
    let (mut edge, _) = ran();
    let agent = edge.core.view_agents(edge.now).remove(0);
    assert!(agent.peer.is_some());
    edge.pass(Duration::from_secs(91));
    edge.pass(STALE_AFTER - Duration::from_secs(600));
    let state = edge.core.saved_state(edge.now);
    let mut after = restart(state, ReservedPorts::new());
    after.pass(Duration::from_secs(590));
    assert_eq!(after.served().len(), 3);
    after.pass(Duration::from_secs(20));
    assert!(
        after.served().is_empty(),
        "{:?}",
        after.core.view_agents(after.now)
    );
}

#[test]
fn a_port_that_the_host_took_meanwhile_is_moved() {
    let (_, state) = ran();
    let after = restart(
        state,
        ReservedPorts::from([(tcp(80), "in use by nginx, pid 7 on this host".into())]),
    );
    assert!(!after.served().contains_key(&tcp(80)));
    assert_eq!(after.served().len(), 3);
}

#[test]
fn a_state_that_contradicts_itself_is_mended() {
    let (_, mut state) = ran();
    let twin = state.agents["home"].clone();
    state.agents.insert("cabin".into(), twin);
    state.agents.insert("No Label".into(), Default::default());
    state.zones.insert("wg9".into(), 1);
    state.zones.insert("wg8".into(), 200);
    let mut services = state.agents["home"].services.clone();
    services[0].record.subdomain = "No_Label".into();
    state.agents.get_mut("home").unwrap().services = services;
    let mut after = restart(state, ReservedPorts::new());
    let keys: Vec<_> = after.served().into_keys().collect();
    assert!(keys.contains(&tcp(80)), "{keys:?}");
    assert_eq!(after.core.zone("wg8"), Some(3));
}

#[test]
fn the_file_is_for_its_owner_alone_and_replaced_as_a_whole() {
    let (_folder, file) = folder();
    let (_, state) = ran();
    assert_eq!(file.load(), Loaded::Absent);
    file.save(&SavedState::default()).unwrap();
    file.save(&state).unwrap();
    assert_eq!(
        fs::metadata(file.path()).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(load(&file), state);
    let left: Vec<_> = fs::read_dir(file.path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [FILE], "nothing is left beside it");
}

#[test]
fn what_cannot_be_used_is_set_aside_and_says_why() {
    let (_, state) = ran();
    let good = serde_json::to_string(&state).unwrap();
    for (text, words) in [
        (good[..good.len() / 2].to_owned(), "damaged"),
        (String::new(), "damaged"),
        ("null".to_owned(), "damaged"),
        ("\u{0}\u{0}\u{0}".to_owned(), "damaged"),
        (good.replace("\"version\":1", "\"version\":2"), "newer edge"),
        (good.replace("\"index\":0", "\"index\":-1"), "damaged"),
        (good.replace("10.96.0.10", "10.96.0.1000"), "damaged"),
    ] {
        assert_ne!(text, good);
        let (_folder, file) = folder();
        fs::create_dir_all(file.path().parent().unwrap()).unwrap();
        fs::write(file.path(), &text).unwrap();
        let Loaded::SetAside { kept, reason } = file.load() else {
            panic!("taken: {text}");
        };
        assert!(reason.contains(words), "{reason}");
        let kept = kept.expect("it is kept");
        assert!(
            kept.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("state.json.damaged-")
        );
        assert_eq!(fs::read_to_string(kept).unwrap(), text, "not a byte is lost");
        assert_eq!(file.load(), Loaded::Absent);
        // A second one in the same second does not overwrite the first.
        fs::write(file.path(), "x").unwrap();
        assert!(matches!(file.load(), Loaded::SetAside { kept: Some(_), .. }));
        assert_eq!(fs::read_dir(file.path().parent().unwrap()).unwrap().count(), 2);
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_file_makes_the_edge_fall() {
    let (_, state) = ran();
    let good = serde_json::to_vec(&state).unwrap();
    for at in (0..good.len()).step_by(7) {
        for bytes in [good[..at].to_vec(), {
            let mut flipped = good.clone();
            flipped[at] ^= 0x15;
            flipped
        }] {
            let Ok(state) = serde_json::from_slice::<SavedState>(&bytes) else {
                continue;
            };
            let edge = restart(state, ReservedPorts::new());
            assert!(edge.core.plan().is_empty());
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let file = StateFile::new(blocked.join("state"));
    let error = file.save(&SavedState::default()).unwrap_err();
    assert!(matches!(error, StateError::Io { .. }));
    assert!(error.to_string().contains("state folder"), "{error}");
}

#[test]
fn a_full_disk_leaves_the_file_before_as_it_was() {
    // A file system of 64 KiB: needs root.
    let folder = tempfile::tempdir().unwrap();
    let mount = nix::mount::mount(
        Some("tmpfs"),
        folder.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=64k"),
    );
    mount.expect("mounting a tmpfs; this test needs root");
    let file = StateFile::new(folder.path().to_owned());
    let (_, state) = ran();
    let result = std::panic::catch_unwind(|| {
        file.save(&state).unwrap();
        fs::write(folder.path().join("filler"), vec![0; 60 << 10]).unwrap_or_default();
        let mut large = state.clone();
        for n in 0..500 {
            large
                .zones
                .insert(format!("interface-{n}-{}", "x".repeat(100)), 1);
        }
        let error = file.save(&large).unwrap_err();
        assert!(error.to_string().contains("free space"), "{error}");
        assert_eq!(load(&file), state);
        fs::remove_file(folder.path().join("filler")).unwrap();
        file.save(&state).unwrap();
    });
    nix::mount::umount(folder.path()).unwrap();
    result.unwrap();
    assert_eq!(VERSION, 1);
}
