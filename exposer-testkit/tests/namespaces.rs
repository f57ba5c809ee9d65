//! Namespaces are made, hold what runs in them, and are gone afterwards, also after a panic; needs root.
//!
//! Needs root.

use std::path::Path;

use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Netns;
use exposer_testkit::tools;

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

#[test]
fn a_namespace_is_made_and_gone_with_its_guard() {
    let netns = Netns::new("made", "one").unwrap();
    let name = netns.name().to_owned();
    assert!(exists(&name));
    assert!(name.starts_with(&format!("xpo-made-one-{}", std::process::id())));
    let links = netns.ip("-o link show").unwrap();
    assert_eq!(links.lines().count(), 1, "only lo: {links}");
    drop(netns);
    assert!(!exists(&name));
}

#[test]
fn a_panic_takes_the_namespace_too() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let netns = Netns::new("panic", "one").unwrap();
        send.send(netns.name().to_owned()).unwrap();
        panic!("as planned");
    });
    let name = receive.recv().unwrap();
    assert!(panicked.join().is_err());
    assert!(!exists(&name));
}

#[test]
fn threads_tasks_and_commands_are_inside_and_the_caller_is_not() {
    let netns = Netns::new("inside", "one").unwrap();
    netns.ip("addr add 192.0.2.1/32 dev lo").unwrap();
    let address: std::net::SocketAddr = "192.0.2.1:0".parse().unwrap();
    netns.run(|| Ok(std::net::TcpListener::bind(address)?)).unwrap();
    netns
        .run_async(|| async move { Ok(tokio::net::TcpListener::bind(address).await?) })
        .unwrap();
    let mut command = netns.command("ip").unwrap();
    let shown = tools::stdout(command.args(["-o", "addr", "show", "dev", "lo"])).unwrap();
    assert!(shown.contains("192.0.2.1/32"), "{shown}");
    assert!(
        std::net::TcpListener::bind(address).is_err(),
        "the caller has the address too"
    );
}

#[test]
fn a_sysctl_is_the_namespace_s_own() {
    let (one, other) = (
        Netns::new("sysctl", "one").unwrap(),
        Netns::new("sysctl", "other").unwrap(),
    );
    one.sysctl("net.ipv4.ip_forward", "1").unwrap();
    other.sysctl("net.ipv4.ip_forward", "0").unwrap();
    let read = |netns: &Netns| {
        let mut command = netns.command("cat").unwrap();
        tools::stdout(command.arg("/proc/sys/net/ipv4/ip_forward")).unwrap()
    };
    assert_eq!((read(&one).trim(), read(&other).trim()), ("1", "0"));
    assert!(
        one.sysctl("kernel.hostname", "x").is_err(),
        "not a sysctl of a network namespace"
    );
}

#[test]
fn a_private_mount_is_seen_by_commands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let mut netns = Netns::new("mount", "one").unwrap();
    netns.private_mount(&source, &target).unwrap();
    let mut command = netns.command("touch").unwrap();
    tools::run(command.arg(target.join("file"))).unwrap();
    assert!(source.join("file").exists());
    assert!(!target.join("file").exists());
}

#[test]
fn a_bpffs_takes_pins_and_is_gone_with_its_guard() {
    let bpffs = Bpffs::new("pins").unwrap();
    let path = bpffs.path().to_owned();
    let kind = nix::sys::statfs::statfs(&path).unwrap().filesystem_type();
    assert_eq!(kind, nix::sys::statfs::BPF_FS_MAGIC);
    std::fs::create_dir(path.join("folder")).unwrap();
    drop(bpffs);
    assert!(!path.exists());
}
