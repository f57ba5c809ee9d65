//! The netlink monitor follows a real network namespace: interfaces come and go, addresses and routes change.
//!
//! Each test runs in a namespace of its own thread, which is gone with the thread. Needs root.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code: a failed expectation is a failed test"
)]

use std::process::Command;
use std::time::Duration;

use exposer_edge::net::environment::{Environment, LinkState};
use exposer_edge::net::links::{self, LinkSettings};
use tokio::sync::watch;

/// Runs `story` on a thread in a new network namespace, inside a runtime that stays on that thread.
fn in_namespace<F: Future<Output = ()>>(story: impl FnOnce() -> F + Send + 'static) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("this test needs root: a network namespace can't be made");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(story());
    };
    std::thread::spawn(body).join().expect("the story failed");
}

/// Runs `ip` in the thread's namespace.
fn ip(line: &str) {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .expect("ip (iproute2) is needed");
    assert!(
        output.status.success(),
        "ip {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn settings() -> LinkSettings {
    LinkSettings {
        tunnel: "tun-home".into(),
        ..LinkSettings::default()
    }
}

/// A public interface `wan` with a default route, and its far end.
fn make_wan() {
    ip("link set lo up");
    ip("link add wan type veth peer name far");
    ip("addr add 203.0.113.7/24 dev wan");
    ip("addr add 2001:db8::7/64 dev wan nodad");
    ip("link set far up");
    ip("link set wan up");
    ip("route add default via 203.0.113.1 dev wan");
}

/// A layer-3 interface `tun-home`, as WireGuard makes one.
fn make_tunnel() {
    ip("tuntap add tun-home mode tun");
    ip("link set tun-home mtu 1420");
    ip("addr add 10.0.0.1/24 dev tun-home");
    ip("link set tun-home up");
    ip("route add 10.96.0.0/12 dev tun-home");
}

/// Waits until the published environment is as `wanted`, and gives it.
async fn until(
    receiver: &mut watch::Receiver<Environment>,
    what: &str,
    wanted: impl FnMut(&Environment) -> bool,
) -> Environment {
    let waited = tokio::time::timeout(Duration::from_secs(30), receiver.wait_for(wanted))
        .await
        .map(|found| found.expect("the monitor ended").clone());
    let Ok(found) = waited else {
        panic!("after 5 s it is not so that {what}: {:#?}", *receiver.borrow());
    };
    found
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn an_environment_is_read_at_once() {
    in_namespace(|| async {
        make_wan();
        make_tunnel();
        let found = links::read(&settings()).await.unwrap();
        assert_eq!(found.wan.name, "wan");
        assert!(found.wan.ethernet && found.wan.ifindex.is_some());
        assert_eq!(found.wan.gateway, Some("203.0.113.1".parse().unwrap()));
        assert_eq!(texts(&found.public_addresses), ["203.0.113.7", "2001:db8::7"]);
        assert_eq!((found.tunnel.mtu, found.tunnel.ethernet), (1420, false));
        assert_eq!(texts(&found.home_prefixes), ["10.0.0.0/24", "10.96.0.0/12"]);
        assert_eq!(found.snat_address, Some("10.0.0.1".parse().unwrap()));
        assert!(found.own_addresses.contains(&"127.0.0.1".parse().unwrap()));
    });
}

#[test]
fn the_tunnel_comes_goes_and_comes_again() {
    in_namespace(|| async {
        make_wan();
        let (publish, mut receiver) = watch::channel(Environment::default());
        let monitor = tokio::spawn(links::run(settings(), publish));
        let absent = LinkState {
            name: "tun-home".into(),
            ..LinkState::default()
        };
        let found = until(&mut receiver, "wan is there, the tunnel is not", |e| {
            e.wan.ifindex.is_some()
        })
        .await;
        assert_eq!((&found.tunnel, found.home_prefixes), (&absent, vec![]));

        make_tunnel();
        let ready = |e: &Environment| e.tunnel.ifindex.is_some() && e.home_prefixes.len() == 2;
        let first = until(&mut receiver, "the tunnel is there", ready).await;

        ip("link del tun-home");
        let found = until(&mut receiver, "the tunnel is gone", |e| e.tunnel == absent).await;
        assert_eq!((found.home_prefixes, found.snat_address), (vec![], None));

        make_tunnel();
        let second = until(&mut receiver, "the tunnel is there again", ready).await;
        assert_ne!(
            first.tunnel.ifindex, second.tunnel.ifindex,
            "a new interface has a new index"
        );
        let same = |e: Environment| (e.tunnel.mtu, e.tunnel.addresses, e.home_prefixes, e.wan);
        assert_eq!(same(first), same(second));
        monitor.abort();
    });
}

#[test]
fn addresses_routes_mtu_and_state_are_followed() {
    in_namespace(|| async {
        make_wan();
        make_tunnel();
        let (publish, mut receiver) = watch::channel(Environment::default());
        let monitor = tokio::spawn(links::run(settings(), publish));
        until(&mut receiver, "all is there", |e| e.home_prefixes.len() == 2).await;

        ip("addr add 203.0.113.8/24 dev wan");
        until(&mut receiver, "an address was added", |e| {
            e.public_addresses.len() == 3
        })
        .await;
        ip("addr del 203.0.113.8/24 dev wan");
        until(&mut receiver, "the address is gone", |e| {
            e.public_addresses.len() == 2
        })
        .await;

        ip("route add 10.244.0.0/16 dev tun-home");
        until(&mut receiver, "a route was added", |e| e.home_prefixes.len() == 3).await;
        ip("-6 route add fd00:96::/112 dev tun-home");
        until(&mut receiver, "an IPv6 route was added", |e| {
            e.home_prefixes.len() == 4
        })
        .await;

        ip("link set tun-home mtu 1380");
        until(&mut receiver, "the MTU changed", |e| e.tunnel.mtu == 1380).await;
        ip("link set tun-home down");
        until(&mut receiver, "the tunnel is down", |e| {
            e.tunnel.ifindex.is_none()
        })
        .await;

        ip("route replace default via 203.0.113.99 dev wan");
        let gateway = Some("203.0.113.99".parse().unwrap());
        until(&mut receiver, "the gateway changed", |e| e.wan.gateway == gateway).await;
        ip("link del wan");
        until(&mut receiver, "the public interface is gone", |e| {
            e.wan.name.is_empty()
        })
        .await;
        monitor.abort();
    });
}

#[test]
fn a_flood_of_changes_ends_in_the_true_picture() {
    in_namespace(|| async {
        make_wan();
        make_tunnel();
        let (publish, mut receiver) = watch::channel(Environment::default());
        let monitor = tokio::spawn(links::run(settings(), publish));
        until(&mut receiver, "all is there", |e| e.home_prefixes.len() == 2).await;
        // `ip` runs on this thread, so the monitor reads nothing meanwhile and the kernel loses messages (ENOBUFS).
        let lines = |verb: &str| {
            let line = |n: u32| {
                format!(
                    "route {verb} 10.{}.{}.0/24 dev tun-home\n",
                    112 + n / 250,
                    n % 250
                )
            };
            (0..4000).map(line).collect::<String>()
        };
        for (verb, expected) in [("add", 4002), ("del", 2)] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), lines(verb)).unwrap();
            ip(&format!("-batch {}", file.path().display()));
            until(&mut receiver, verb, |e| e.home_prefixes.len() == expected).await;
        }
        monitor.abort();
    });
}

#[test]
fn the_monitor_ends_when_nobody_listens() {
    in_namespace(|| async {
        let (publish, receiver) = watch::channel(Environment::default());
        let monitor = tokio::spawn(links::run(settings(), publish));
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(receiver);
        let ended = tokio::time::timeout(Duration::from_secs(30), monitor).await;
        ended.expect("the monitor goes on without a listener").unwrap();
    });
}
