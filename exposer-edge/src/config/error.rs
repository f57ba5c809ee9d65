//! Why settings are refused. Every text names the flag and the variable, quotes the value and says what to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::PortRange;

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not of its form.
    #[error("--{flag} ({variable}) is \"{text}\": {problem}")]
    Value {
        /// The flag, without dashes.
        flag: &'static str,
        /// The environment variable.
        variable: String,
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The control channel would be open to the internet.
    #[error(
        "--listen-addr (EXPOSER_LISTEN_ADDR) {0} is a public or wildcard address: the control channel would be open to \
         the internet. Give the edge's address in the tunnel, for example 10.0.0.1:9090, or allow this one with \
         --allow-public-listen (EXPOSER_ALLOW_PUBLIC_LISTEN=true)"
    )]
    PublicListen(IpAddr),
    /// The admin API would be open to others.
    #[error(
        "--admin-addr (EXPOSER_ADMIN_ADDR) {0} is not a loopback address: whoever reaches it reads the state of every \
         Service, for the admin API asks for no password. Give 127.0.0.1:9091, or allow this one with \
         --allow-remote-admin (EXPOSER_ALLOW_REMOTE_ADMIN=true)"
    )]
    RemoteAdmin(IpAddr),
    /// A certificate without its key, or the reverse.
    #[error("--tls-{given} (EXPOSER_TLS_{}) is given without --tls-{missing} (EXPOSER_TLS_{}); give both or neither", given.to_uppercase(), missing.to_uppercase())]
    TlsHalf {
        /// What was given: `cert` or `key`.
        given: &'static str,
        /// What was not.
        missing: &'static str,
    },
    /// TLS is not there yet.
    #[error(
        "TLS on the control channel (EXPOSER_TLS_CERT, EXPOSER_TLS_KEY) is not supported by this version. Remove both \
         settings: the channel then runs through the WireGuard tunnel, which encrypts it, and both sides prove that \
         they know the token"
    )]
    TlsUnsupported,
    /// The range of public ports is no range.
    #[error(
        "--port-range-start and --port-range-end (EXPOSER_PORT_RANGE_START, EXPOSER_PORT_RANGE_END): {0}"
    )]
    DynamicPorts(super::PortRangeError),
    /// One interface for both sides.
    #[error(
        "--public-interface and --wireguard-interface are both \"{0}\": clients come in by one interface and leave for \
         home by another; leave EXPOSER_PUBLIC_INTERFACE empty to take that of the default route"
    )]
    SameInterface(String),
    /// One address for both servers.
    #[error("--listen-addr and --admin-addr are both {0}; give one of them another port")]
    SameAddress(SocketAddr),
    /// Masqueraded packets would carry a public address into the tunnel.
    #[error(
        "--snat-address (EXPOSER_SNAT_ADDRESS) {0} is a public address as well: replies from home would not come back \
         through the tunnel. Give an address of the tunnel, or leave it empty to take the WireGuard interface's"
    )]
    SnatAddressIsPublic(Ipv4Addr),
    /// Masqueraded packets would come from ports of well-known services.
    #[error(
        "--snat-range (EXPOSER_SNAT_RANGE) {0} begins below 1024, where servers of this host listen; begin at 1024 or above"
    )]
    SnatRangePrivileged(PortRange),
    /// The SNAT range and the kernel's own range overlap.
    #[error(
        "--snat-range (EXPOSER_SNAT_RANGE) {range} overlaps net.ipv4.ip_local_port_range {local} in {overlap}: a \
         connection of this host could get the same port as a forwarded one. Choose another range, or narrow the \
         kernel's: sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\", or use --datapath userspace"
    )]
    SnatRangeOverlap {
        /// The setting.
        range: PortRange,
        /// The kernel's range.
        local: PortRange,
        /// The ports in both.
        overlap: PortRange,
    },
    /// The heartbeat is written once a second; a limit near that would close ports at random.
    #[error(
        "--heartbeat-max-age (EXPOSER_HEARTBEAT_MAX_AGE) {} is too short: the daemon writes its heartbeat once a second, \
         so anything below 5s could close ports on a busy machine; give 5s or more, 60s is usual",
        humantime::format_duration(*.0)
    )]
    HeartbeatTooShort(Duration),
}
