//! From text to checked values, one setting at a time.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use exposer_common::model::shorten;

use super::{ConfigError, PortRange};

/// Ports below are for servers of the host itself.
pub(super) const FIRST_UNPRIVILEGED: u16 = 1024;
/// The heartbeat is written once a second; less than a few of those is noise.
pub(super) const MIN_HEARTBEAT_AGE: Duration = Duration::from_secs(5);
/// Longest interface name (`IFNAMSIZ` − 1), in bytes.
const MAX_INTERFACE: usize = 15;

/// The error for `text` given to `flag`.
fn wrong(flag: &'static str, text: &str, problem: impl Display) -> ConfigError {
    ConfigError::Value {
        flag,
        variable: format!("EXPOSER_{}", flag.replace('-', "_").to_uppercase()),
        text: shorten(text),
        problem: problem.to_string(),
    }
}

/// A setting that is there and not empty.
pub(super) fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// Anything that parses itself.
pub(super) fn value<T>(flag: &'static str, text: &str) -> Result<T, ConfigError>
where
    T: FromStr,
    T::Err: Display,
{
    text.trim().parse().map_err(|error| wrong(flag, text, error))
}

/// A time with its unit.
pub(super) fn duration(flag: &'static str, text: &str) -> Result<Duration, ConfigError> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        wrong(
            flag,
            text,
            "it is not a time with its unit, for example 30s, 5m or 24h",
        )
    })
}

/// An absolute path.
pub(super) fn path(flag: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(text.trim());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(wrong(
            flag,
            text,
            "it is not an absolute path, one that begins with /",
        ))
    }
}

/// An interface name as the kernel takes it (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(flag: &'static str, text: &str) -> Result<String, ConfigError> {
    let text = text.trim();
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > MAX_INTERFACE || text == "." || text == ".." || text.contains(odd) {
        let problem = "it is not an interface name (1-15 bytes, no space, / or :); `ip link` lists them";
        return Err(wrong(flag, text, problem));
    }
    Ok(text.to_owned())
}

fn socket_address(flag: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let problem = "it is not ADDRESS:PORT, for example 10.0.0.1:9090 or [fd00::1]:9090";
    let address: SocketAddr = text.trim().parse().map_err(|_| wrong(flag, text, problem))?;
    if address.port() == 0 {
        return Err(wrong(flag, text, "port 0 is not a port; give one of 1-65535"));
    }
    Ok(address)
}

/// Where agents connect.
pub(super) fn listen_address(text: &str, allow_public: bool) -> Result<SocketAddr, ConfigError> {
    let address = socket_address("listen-addr", text)?;
    if allow_public || is_private(address.ip()) {
        Ok(address)
    } else {
        Err(ConfigError::PublicListen(address.ip()))
    }
}

/// Where the admin API listens.
pub(super) fn admin_address(text: &str, allow_remote: bool) -> Result<SocketAddr, ConfigError> {
    let address = socket_address("admin-addr", text)?;
    if allow_remote || address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(ConfigError::RemoteAdmin(address.ip()))
    }
}

/// Whether only a private network can reach `address`: loopback, link-local, RFC 1918, RFC 6598 and RFC 4193.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

/// Public addresses, comma separated.
pub(super) fn public_addresses(text: Option<&str>) -> Result<Vec<IpAddr>, ConfigError> {
    const FLAG: &str = "public-address";
    let mut addresses = Vec::new();
    for part in given(text).into_iter().flat_map(|text| text.split(',')) {
        let part = part.trim();
        let address: IpAddr = part.parse().map_err(|_| {
            wrong(
                FLAG,
                part,
                "it is not an IP address, nor several with commas between",
            )
        })?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(wrong(
                FLAG,
                part,
                "nobody on the internet reaches this address; give that of the VPS",
            ));
        }
        addresses.push(address);
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Source address of masqueraded packets.
pub(super) fn snat_address(text: &str) -> Result<Ipv4Addr, ConfigError> {
    const FLAG: &str = "snat-address";
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(wrong(
            FLAG,
            text,
            "the kernel path masquerades IPv4 alone; give the tunnel's IPv4 address",
        ));
    }
    let address: Ipv4Addr = value(FLAG, text)?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || address.is_broadcast() {
        return Err(wrong(
            FLAG,
            text,
            "home could not answer to it; give the tunnel's IPv4 address",
        ));
    }
    Ok(address)
}

/// Public ports that are given out when the wished one is taken.
pub(super) fn dynamic_ports(start: &str, end: &str) -> Result<PortRange, ConfigError> {
    let port = |flag, text: &str| {
        text.trim()
            .parse::<u16>()
            .map_err(|_| wrong(flag, text, "it is not a port (1-65535)"))
    };
    let first = port("port-range-start", start)?;
    let last = port("port-range-end", end)?;
    PortRange::new(first, last).map_err(ConfigError::DynamicPorts)
}

/// TLS is a promise that this version can't keep, so it is refused, never taken for plain.
pub(super) fn refuse_tls(cert: Option<&str>, key: Option<&str>) -> Result<(), ConfigError> {
    match (given(cert), given(key)) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(ConfigError::TlsHalf {
            given: "cert",
            missing: "key",
        }),
        (None, Some(_)) => Err(ConfigError::TlsHalf {
            given: "key",
            missing: "cert",
        }),
        (Some(_), Some(_)) => Err(ConfigError::TlsUnsupported),
    }
}
