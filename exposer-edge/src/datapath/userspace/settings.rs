//! Settings of the userspace path, already valid.

use std::time::Duration;

/// How the userspace path behaves. [`UserspaceSettings::new`] gives the defaults of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserspaceSettings {
    /// The interface that every dial is bound to with `SO_BINDTODEVICE`, so that nothing of the tunnel ever leaves by
    /// another one (DESIGN §1.5). `None` binds to nothing, and is for tests over loopback alone.
    pub tunnel: Option<String>,
    /// How long a client waits, at most, until a backend answers: then RST.
    pub connect_timeout: Duration,
    /// How long a refusing backend is asked again while the client has sent nothing.
    pub refused_retry: Duration,
    /// TCP connections without a byte in either direction end after this (RFC 5382: at least 2 h 4 min).
    pub tcp_idle: Duration,
    /// UDP sessions without a datagram in either direction end after this (RFC 4787: 5 min recommended).
    pub udp_idle: Duration,
    /// The same for sessions that no backend has answered yet.
    pub udp_unreplied: Duration,
    /// Connections (TCP) and, apart from them, sessions (UDP) that one Service may have at a time.
    pub per_service: u32,
    /// Connections (TCP) and, apart from them, sessions (UDP) that one source may have at a time, over all Services.
    /// A source is an IPv4 address or an IPv6 /64.
    pub per_source: u32,
    /// Bytes that a connection may hold in a kernel pipe, for each direction. Only a direction in bulk transfer has one.
    pub pipe_bytes: usize,
    /// Receive and send buffer wished for the public UDP sockets, in bytes; the kernel may grant less.
    pub udp_buffer_bytes: usize,
    /// Whether bulk transfers go by splice(2), without a copy through the process.
    pub zero_copy: bool,
}

impl UserspaceSettings {
    /// The defaults, dialling through `tunnel`.
    #[must_use]
    pub fn new(tunnel: impl Into<String>) -> Self {
        Self {
            tunnel: Some(tunnel.into()),
            connect_timeout: Duration::from_secs(10),
            refused_retry: Duration::from_millis(300),
            tcp_idle: Duration::from_secs(2 * 3600 + 4 * 60),
            udp_idle: Duration::from_secs(300),
            udp_unreplied: Duration::from_secs(30),
            per_service: 16_384,
            per_source: 1_024,
            pipe_bytes: 256 * 1024,
            udp_buffer_bytes: 4 * 1024 * 1024,
            zero_copy: true,
        }
    }
}
