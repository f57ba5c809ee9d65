//! What is valid: the settings as the rest of the program uses them.
//!
//! Every check of a value and between values is in [`Config::from_settings`]; what depends on the host as it is
//! (the kernel's own port range) is in [`Config::check_host`], so that `exposer-edge check` can report it as a finding.

mod error;
mod parse;
mod port_range;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use error::ConfigError;
pub use port_range::{PortRange, PortRangeError};

use crate::args::Settings;
use crate::net::environment::Environment;

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathChoice {
    /// The kernel path where it works, else userspace alone.
    Auto,
    /// The kernel path, with userspace as its fallback; no start without it.
    Kernel,
    /// Userspace alone; no BPF program is loaded.
    Userspace,
}

impl FromStr for DatapathChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "userspace" => Ok(Self::Userspace),
            _ => Err("it is one of auto, kernel and userspace".to_owned()),
        }
    }
}

impl std::fmt::Display for DatapathChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        })
    }
}

/// Settings of the daemon, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where agents connect. A tunnel, private or loopback address, unless the operator allowed another.
    pub listen: SocketAddr,
    /// Where the admin API listens. A loopback address, unless the operator allowed another.
    pub admin: SocketAddr,
    /// File with the token; read by whoever needs it, never kept here.
    pub token_file: PathBuf,
    /// Name of the WireGuard interface.
    pub wireguard_interface: String,
    /// Name of the public interface; none = that of the default route.
    pub public_interface: Option<String>,
    /// Public addresses as given, sorted; empty = those of the public interface.
    pub public_addresses: Vec<IpAddr>,
    /// Source address of masqueraded packets; none = the tunnel interface's.
    pub snat_address: Option<Ipv4Addr>,
    /// Source ports of masqueraded packets.
    pub snat_range: PortRange,
    /// Public ports that are given out when the wished one is taken.
    pub dynamic_ports: PortRange,
    /// What carries packets.
    pub datapath: DatapathChoice,
    /// Folder of the state file.
    pub state_dir: PathBuf,
    /// Folder of pinned maps and links.
    pub bpffs: PathBuf,
    /// How long Services of a vanished agent stay up.
    pub stale_after: Duration,
    /// How long TCP connections of a removed Service may go on.
    pub drain: Duration,
    /// Age of the heartbeat beyond which the kernel path makes no new flow.
    pub heartbeat_max_age: Duration,
    /// New kernel-path flows a second for each client address; 0 = no limit.
    pub new_flows_per_source: u32,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// The first setting that is wrong, with its flag and variable, the offending text and what to do.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let Settings {
            listen_addr,
            allow_public_listen,
            token_file,
            wireguard_interface,
            public_interface,
            public_address,
            snat_address,
            snat_range,
            port_range_start,
            port_range_end,
            datapath,
            state_dir,
            stale_after,
            drain,
            heartbeat_max_age,
            new_flows_per_source,
            tls_cert,
            tls_key,
            admin,
            allow_remote_admin,
            bpffs,
        } = settings;
        parse::refuse_tls(tls_cert.as_deref(), tls_key.as_deref())?;
        let config = Self {
            listen: parse::listen_address(listen_addr, *allow_public_listen)?,
            admin: parse::admin_address(&admin.admin_addr, *allow_remote_admin)?,
            token_file: parse::path("token-file", token_file)?,
            wireguard_interface: parse::interface("wireguard-interface", wireguard_interface)?,
            public_interface: parse::given(public_interface.as_deref())
                .map(|text| parse::interface("public-interface", text))
                .transpose()?,
            public_addresses: parse::public_addresses(public_address.as_deref())?,
            snat_address: parse::given(snat_address.as_deref())
                .map(parse::snat_address)
                .transpose()?,
            snat_range: parse::value("snat-range", snat_range)?,
            dynamic_ports: parse::dynamic_ports(port_range_start, port_range_end)?,
            datapath: parse::value("datapath", datapath)?,
            state_dir: parse::path("state-dir", state_dir)?,
            bpffs: parse::path("bpffs", &bpffs.bpffs)?,
            stale_after: parse::duration("stale-after", stale_after)?,
            drain: parse::duration("drain", drain)?,
            heartbeat_max_age: parse::duration("heartbeat-max-age", heartbeat_max_age)?,
            new_flows_per_source: parse::value("new-flows-per-source", new_flows_per_source)?,
        };
        config.check_fields()?;
        Ok(config)
    }

    /// What must hold between fields.
    fn check_fields(&self) -> Result<(), ConfigError> {
        if self.public_interface.as_ref() == Some(&self.wireguard_interface) {
            return Err(ConfigError::SameInterface(self.wireguard_interface.clone()));
        }
        if self.listen == self.admin {
            return Err(ConfigError::SameAddress(self.listen));
        }
        if let Some(address) = self.snat_address
            && self.public_addresses.contains(&IpAddr::V4(address))
        {
            return Err(ConfigError::SnatAddressIsPublic(address));
        }
        if self.snat_range.first() < parse::FIRST_UNPRIVILEGED {
            return Err(ConfigError::SnatRangePrivileged(self.snat_range));
        }
        if self.heartbeat_max_age < parse::MIN_HEARTBEAT_AGE {
            return Err(ConfigError::HeartbeatTooShort(self.heartbeat_max_age));
        }
        Ok(())
    }

    /// Checks the settings against the kernel's range of local ports (`net.ipv4.ip_local_port_range`).
    ///
    /// # Errors
    ///
    /// When masqueraded packets could get a source port that a socket of this host gets too. No matter for
    /// [`DatapathChoice::Userspace`], where the kernel chooses both.
    pub fn check_host(&self, local_ports: PortRange) -> Result<(), ConfigError> {
        if self.datapath == DatapathChoice::Userspace {
            return Ok(());
        }
        match self.snat_range.intersection(local_ports) {
            None => Ok(()),
            Some(overlap) => Err(ConfigError::SnatRangeOverlap {
                range: self.snat_range,
                local: local_ports,
                overlap,
            }),
        }
    }

    /// Addresses that names should point to: those given, else those that are served on.
    #[must_use]
    pub fn published_addresses(&self, environment: &Environment) -> Vec<IpAddr> {
        if self.public_addresses.is_empty() {
            environment.public_addresses.clone()
        } else {
            self.public_addresses.clone()
        }
    }
}

/// Where to ask the daemon: an address as `--admin-addr` has it, loopback or not.
///
/// # Errors
///
/// When it is no address with a port.
pub fn admin_address(text: &str) -> Result<SocketAddr, ConfigError> {
    parse::admin_address(text, true)
}

/// The kernel's range of local ports, from `net.ipv4.ip_local_port_range`.
///
/// # Errors
///
/// When the file can't be read or holds something else than two ports.
pub fn local_port_range() -> std::io::Result<PortRange> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let joined = text.split_whitespace().collect::<Vec<_>>().join("-");
    joined.parse().map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests;
