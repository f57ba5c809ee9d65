//! Public ports that must not be given to a Service: those of the host itself (DESIGN §1.8).

use std::collections::BTreeMap;

use exposer_common::model::Protocol;

use super::firewall::{Firewall, Redirected};
use super::listeners::{self, Listener};
use crate::config::Config;
use crate::datapath::BindingKey;

/// Each reserved port with the reason, for a person.
pub type Reserved = BTreeMap<BindingKey, String>;

/// Looks at the host: our own control and admin ports, WireGuard's, ports that other programs listen on, and ports
/// that nat rules send elsewhere. Takes some tens of milliseconds; call it at the start and then every half minute or
/// so. What can't be read is logged and left out.
pub async fn scan(config: &Config) -> Reserved {
    let listeners = match tokio::task::spawn_blocking(listeners::scan).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(component = "listeners", %error, "can't read which ports are in use; is procfs on /proc?");
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(component = "listeners", %error, "the search for ports in use broke off");
            Vec::new()
        }
    };
    combine(config, &listeners, &Firewall::read().await)
}

/// What [`scan`] says of a host with these listeners and this firewall. The first reason stands.
#[must_use]
pub fn combine(config: &Config, found: &[Listener], firewall: &Firewall) -> Reserved {
    let mut reserved = own(config);
    add(&mut reserved, listeners::reserved(found));
    add(&mut reserved, redirected(&firewall.redirected()));
    reserved
}

/// Ports that are ours by configuration, whether anything listens there at the moment or not.
#[must_use]
pub fn own(config: &Config) -> Reserved {
    let key = |port, protocol| BindingKey { port, protocol };
    let mut reserved = Reserved::from([
        (
            key(config.listen.port(), Protocol::Tcp),
            "the control channel of exposer-edge (EXPOSER_LISTEN_ADDR)".to_owned(),
        ),
        (
            key(config.admin.port(), Protocol::Tcp),
            "the admin API of exposer-edge (EXPOSER_ADMIN_ADDR)".to_owned(),
        ),
    ]);
    let name = &config.wireguard_interface;
    if let Ok(text) = std::fs::read_to_string(format!("/etc/wireguard/{name}.conf"))
        && let Some(port) = wireguard_port(&text)
    {
        reserved.insert(
            key(port, Protocol::Udp),
            format!("WireGuard, by /etc/wireguard/{name}.conf"),
        );
    }
    reserved
}

/// `ListenPort` of a wg-quick configuration.
fn wireguard_port(text: &str) -> Option<u16> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let (name, value) = line.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("ListenPort")
            .then(|| value.trim().parse().ok())?
    })
}

fn redirected(found: &[Redirected]) -> Reserved {
    let mut reserved = Reserved::new();
    for Redirected {
        protocol,
        ports,
        rule,
    } in found
    {
        for protocol in Protocol::ALL
            .into_iter()
            .filter(|candidate| protocol.is_none_or(|only| only == *candidate))
        {
            for port in ports.iter() {
                reserved.insert(
                    BindingKey { port, protocol },
                    format!("sent elsewhere by a nat rule of this host ({rule})"),
                );
            }
        }
    }
    reserved
}

/// Adds what is not reserved yet: the first reason stands.
fn add(reserved: &mut Reserved, more: Reserved) {
    for (key, reason) in more {
        reserved.entry(key).or_insert(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortRange;

    #[test]
    fn the_port_of_a_wireguard_configuration() {
        for (text, port) in [
            (
                "[Interface]\nPrivateKey = x=\nListenPort = 51820\n[Peer]\n",
                Some(51_820),
            ),
            ("listenport=7 # home", Some(7)),
            ("# ListenPort = 7", None),
            ("ListenPort = 70000", None),
            ("", None),
        ] {
            assert_eq!(wireguard_port(text), port, "{text}");
        }
    }

    #[test]
    fn redirected_ports_are_reserved_for_their_protocol() {
        let found = |protocol, first, last| Redirected {
            protocol,
            ports: PortRange::new(first, last).unwrap(),
            rule: "a rule".into(),
        };
        let reserved = redirected(&[found(Some(Protocol::Tcp), 80, 81), found(None, 7, 7)]);
        let keys: Vec<String> = reserved.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["7/tcp", "7/udp", "80/tcp", "81/tcp"]);
        assert!(reserved.values().all(|reason| reason.contains("a rule")));
    }
}
