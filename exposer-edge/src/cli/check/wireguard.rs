//! The WireGuard interface and its peers, as `wg show INTERFACE dump` tells. Keys of ours are never printed.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::facts::Facts;
use super::report::Row;
use crate::cli::output::duration;
use crate::config::Config;

/// A live peer makes a new handshake within so many seconds while there is traffic (REJECT_AFTER_TIME).
const STALE: u64 = 180;

/// A peer.
#[derive(Debug, PartialEq, Eq)]
struct Peer {
    /// The first characters of its public key.
    key: String,
    endpoint: Option<String>,
    allowed: String,
    /// Seconds since 1970; 0 = never.
    handshake: u64,
}

/// What `wg show INTERFACE dump` says: the listen port, and the peers.
fn parse(dump: &str) -> Option<(u16, Vec<Peer>)> {
    let mut lines = dump.lines();
    // private key, public key, listen port, firewall mark
    let port = lines.next()?.split('\t').nth(2)?.parse().ok()?;
    let peer = |line: &str| {
        // public key, preshared key, endpoint, allowed IPs, latest handshake, received, sent, keepalive
        let mut fields = line.split('\t');
        Some(Peer {
            key: fields.next()?.chars().take(8).collect(),
            endpoint: fields
                .nth(1)
                .map(ToOwned::to_owned)
                .filter(|text| text != "(none)"),
            allowed: fields.next()?.replace(',', ", "),
            handshake: fields.next()?.parse().ok()?,
        })
    };
    Some((port, lines.filter_map(peer).collect()))
}

pub(super) fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let name = &config.wireguard_interface;
    let row = || Row::new("wireguard-peer");
    if facts.environment.tunnel.ifindex.is_none() {
        return vec![row().ok(format!("not asked: {name} is not up"))];
    }
    let output = match Command::new("wg").args(["show", name, "dump"]).output() {
        Ok(output) => output,
        Err(error) => {
            return vec![row().warn(
                format!("wg can't be asked: {error}"),
                "apt install wireguard-tools",
            )];
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return vec![row().warn(
            format!(
                "wg does not know {name}: {}",
                said.lines().next().unwrap_or_default()
            ),
            "run the check as root; if the interface is no WireGuard, packets leave in clear",
        )];
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    match parse(&String::from_utf8_lossy(&output.stdout)) {
        None => vec![row().warn(
            "the answer of wg is not understood",
            "apt install --only-upgrade wireguard-tools",
        )],
        Some((_, peers)) if peers.is_empty() => vec![row().fail(
            format!("{name} has no peer"),
            format!("add a [Peer] section for the home node to /etc/wireguard/{name}.conf"),
        )],
        Some((port, peers)) => peers.iter().map(|peer| judge(port, peer, now)).collect(),
    }
}

fn judge(port: u16, peer: &Peer, now: u64) -> Row {
    let row = Row::new("wireguard-peer");
    let Peer {
        key,
        endpoint,
        allowed,
        handshake,
    } = peer;
    let from = endpoint.as_deref().unwrap_or("no endpoint yet");
    let about = format!("peer {key}… ({from}), AllowedIPs {allowed}");
    if *handshake == 0 {
        return row.warn(
            format!("{about}: never spoke"),
            format!("start WireGuard at home; its Endpoint is this host, UDP port {port}, which a firewall must let in"),
        );
    }
    let age = now.saturating_sub(*handshake);
    let ago = duration(Duration::from_secs(age));
    if age > STALE {
        let remedy = "set PersistentKeepalive = 25 at home; see whether the home node is up";
        return row.warn(format!("{about}: last handshake {ago} ago"), remedy);
    }
    row.ok(format!("{about}: last handshake {ago} ago"))
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    const DUMP: &str = "SECRET=\tPUB=\t51820\toff\n\
        abcdefghijk=\t(none)\t198.51.100.7:51820\t10.0.0.2/32,10.96.0.0/12\t1790000000\t1\t2\t25\n\
        ABCDEFGHIJK=\tPSK=\t(none)\t10.0.0.3/32\t0\t0\t0\toff\n";

    #[test]
    fn a_dump() {
        let (port, peers) = parse(DUMP).unwrap();
        assert_eq!((port, peers.len()), (51_820, 2));
        assert_eq!(peers[0].allowed, "10.0.0.2/32, 10.96.0.0/12");
        assert_eq!(peers[0].endpoint.as_deref(), Some("198.51.100.7:51820"));
        let state = |peer, now| judge(51_820, peer, now);
        assert_eq!(state(&peers[0], 1_790_000_060).state, State::Ok);
        assert_eq!(state(&peers[0], 1_790_000_600).state, State::Warn);
        let never = state(&peers[1], 1_790_000_000);
        assert_eq!(never.state, State::Warn);
        assert!(never.remedy.unwrap().contains("UDP port 51820"));
        let shown: String = peers.iter().map(|peer| state(peer, 0).found).collect();
        assert!(!shown.contains("SECRET") && !shown.contains("PSK"), "{shown}");
    }

    #[test]
    fn nonsense_is_not_understood() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("a\tb"), None);
        assert_eq!(parse("a\tb\t1\toff\nshort"), Some((1, vec![])));
    }
}
