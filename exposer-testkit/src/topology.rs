//! The standard network of the tests and the demo.
//!
//! ```text
//!  client (the internet)                 edge (the VPS)                  home (behind NAT)
//!  lo   44.128.7.7/32
//!  cl0  44.128.0.1/24 ── veth ──── wan0  44.128.0.2/24
//!  in0  44.129.0.1/24 ── veth ───────────────────────────────────── up0  44.129.0.2/24
//!                                  wg0   10.0.0.1/24 ═ WireGuard ═ wg-home 10.0.0.2/24
//!                                  10.96.0.0/16 dev wg0             lo 10.96.0.x/32 (Services)
//! ```
//!
//! The client's namespace is also the router between edge and home, so WireGuard's own packets cross `wan0` as they do
//! on a real VPS. 44.128.0.0/10 is AMPRNet's space for tests: prefixes for documentation, benchmarks and private use
//! would be refused as martian sources by the kernel path. A client bound to 44.128.0.1 is on the edge's own link; one
//! bound to 44.128.7.7 is reached through the gateway. The edge forwards nothing (`ip_forward` is 0).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bpffs::Bpffs;
use crate::netns::Netns;
use crate::scratch::Scratch;
use crate::tools;
use crate::turn::Turn;
use crate::wireguard::{Config, Keys, Peer, SOCKETS, Wireguard};

/// The edge's public address.
pub const EDGE_PUBLIC: Ipv4Addr = Ipv4Addr::new(44, 128, 0, 2);
/// A client on the edge's own public link; the edge's default gateway.
pub const CLIENT_ON_LINK: Ipv4Addr = Ipv4Addr::new(44, 128, 0, 1);
/// A client that the edge reaches through its gateway.
pub const CLIENT_FAR: Ipv4Addr = Ipv4Addr::new(44, 128, 7, 7);
/// The edge's address in the tunnel.
pub const EDGE_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The home node's address in the tunnel.
pub const HOME_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The edge's public interface.
pub const WAN: &str = "wan0";
/// The edge's WireGuard interface.
pub const TUNNEL: &str = "wg0";
/// The home node's WireGuard interface.
pub const HOME_WG: &str = "wg-home";
/// MTU of both WireGuard interfaces, in bytes.
pub const TUNNEL_MTU: u32 = 1420;
/// The port on which the edge's WireGuard listens.
pub const WIREGUARD_PORT: u16 = 51_820;

const HOME_UPLINK: Ipv4Addr = Ipv4Addr::new(44, 129, 0, 2);

/// What may differ from the standard.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leave veth's transmit offloads on (checksums unfinished, segments unsplit), as between virtual machines.
    pub offloads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { offloads: true }
    }
}

/// The three namespaces, the tunnel and a private bpffs; all gone when dropped.
///
/// The fields are dropped in their order: the tunnels before the namespaces that they stand in.
#[derive(Debug)]
pub struct Topology {
    /// The edge's end of the tunnel.
    pub edge_wg: Wireguard,
    /// The home node's end of the tunnel.
    pub home_wg: Wireguard,
    /// The internet: clients, and the router between the other two.
    pub client: Netns,
    /// The VPS.
    pub edge: Netns,
    /// The home node.
    pub home: Netns,
    /// Where the edge may pin.
    pub bpffs: Bpffs,
    folder: Scratch,
    _turn: Option<Turn>,
}

impl Topology {
    /// Waits for its [turn](crate::turn), makes the network and waits for the first handshake.
    ///
    /// # Errors
    ///
    /// No privilege, a tool missing, no turn within 15 minutes, or no handshake within 30 s.
    pub fn new(test: &str, options: Options) -> Result<Self> {
        let turn = Turn::wait(Duration::from_secs(900))?;
        let mut this = Self::at_once(test, options)?;
        this._turn = Some(turn);
        Ok(this)
    }

    /// As [`Self::new`], however many networks there are: for a person, who may keep it for hours.
    ///
    /// # Errors
    ///
    /// No privilege, a tool missing, or no handshake within 30 s.
    pub fn at_once(test: &str, options: Options) -> Result<Self> {
        let folder = Scratch::new(test)?;
        let bpffs = Bpffs::new(test)?;
        let client = Netns::new(test, "client")?;
        let mut edge = Netns::new(test, "edge")?;
        let mut home = Netns::new(test, "home")?;
        edge.private_mount(&folder.path().join("edge/wireguard"), Path::new(SOCKETS))?;
        home.private_mount(&folder.path().join("home/wireguard"), Path::new(SOCKETS))?;
        wire(&client, &edge, &home)?;
        if !options.offloads {
            for (netns, link) in [(&client, "cl0"), (&client, "in0"), (&edge, WAN), (&home, "up0")] {
                tools::run(
                    netns
                        .command("ethtool")?
                        .args(["-K", link, "tx", "off", "tso", "off", "gso", "off"]),
                )?;
            }
        }
        let (edge_wg, home_wg) = tunnel(&edge, &home, folder.path())?;
        edge.ip(&format!("route add 10.96.0.0/16 dev {TUNNEL}"))?;
        let this = Self {
            edge_wg,
            home_wg,
            client,
            edge,
            home,
            bpffs,
            folder,
            _turn: None,
        };
        this.home_wg.wait_for_handshake(Duration::from_secs(30))?;
        Ok(this)
    }

    /// A folder of the test's own, gone with the topology.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the home node a Service address within 10.96.0.0/16, as kube-proxy would answer for it.
    ///
    /// # Errors
    ///
    /// It has it already.
    pub fn add_service_address(&self, address: IpAddr) -> Result<()> {
        self.home.ip(&format!("addr add {address}/32 dev lo")).map(|_| ())
    }

    /// As [`Self::add_service_address`], for an address of a cluster with any range: where it is outside 10.96.0.0/16,
    /// the edge gets a route and WireGuard the prefix besides.
    ///
    /// # Errors
    ///
    /// It is there already.
    pub fn add_any_service_address(&mut self, address: IpAddr) -> Result<()> {
        let usual = matches!(address, IpAddr::V4(v4) if v4.octets().starts_with(&[10, 96]));
        if !usual {
            self.edge.ip(&format!("route add {address} dev {TUNNEL}"))?;
            self.edge_wg.allow(&address.to_string())?;
        }
        self.add_service_address(address)
    }

    /// A public socket address of the edge.
    #[must_use]
    pub fn public(&self, port: u16) -> SocketAddr {
        SocketAddr::from((EDGE_PUBLIC, port))
    }

    /// Takes the edge's tunnel interface away and brings it back with its routes, as `wg-quick` does.
    ///
    /// # Errors
    ///
    /// As making it.
    pub fn restart_edge_tunnel(&mut self) -> Result<()> {
        self.edge_wg.down()?;
        self.edge_wg.up_again()?;
        self.edge
            .ip(&format!("route add 10.96.0.0/16 dev {TUNNEL}"))
            .map(|_| ())
    }

    /// Writes a script that opens a shell (or runs its arguments) as a process of the edge: its network, its
    /// WireGuard sockets. Returns its path.
    ///
    /// # Errors
    ///
    /// The script cannot be written.
    pub fn edge_script(&self, environment: &[(String, String)]) -> Result<PathBuf> {
        script(
            &self.folder.path().join("enter-edge"),
            self.edge.name(),
            &self.folder.path().join("edge/wireguard"),
            environment,
        )
    }

    /// The same for the home node.
    ///
    /// # Errors
    ///
    /// The script cannot be written.
    pub fn home_script(&self) -> Result<PathBuf> {
        script(
            &self.folder.path().join("enter-home"),
            self.home.name(),
            &self.folder.path().join("home/wireguard"),
            &[],
        )
    }
}

/// Links, addresses and routes below the tunnel.
fn wire(client: &Netns, edge: &Netns, home: &Netns) -> Result<()> {
    client.connect("cl0", edge, WAN)?;
    client.connect("in0", home, "up0")?;
    client.ip(&format!("addr add {CLIENT_FAR}/32 dev lo"))?;
    client.ip(&format!("addr add {CLIENT_ON_LINK}/24 dev cl0"))?;
    client.ip("addr add 44.129.0.1/24 dev in0")?;
    client.sysctl("net.ipv4.ip_forward", "1")?;
    edge.ip(&format!("addr add {EDGE_PUBLIC}/24 dev {WAN}"))?;
    edge.ip(&format!("route add default via {CLIENT_ON_LINK}"))?;
    edge.sysctl("net.ipv4.ip_forward", "0")?;
    home.ip(&format!("addr add {HOME_UPLINK}/24 dev up0"))?;
    home.ip("route add default via 44.129.0.1")?;
    Ok(())
}

/// Both ends of the tunnel; home begins, as from behind NAT.
fn tunnel(edge: &Netns, home: &Netns, folder: &Path) -> Result<(Wireguard, Wireguard)> {
    let (edge_keys, home_keys) = (Keys::generate()?, Keys::generate()?);
    let edge_config = Config {
        interface: TUNNEL.to_owned(),
        keys: edge_keys.clone(),
        listen_port: Some(WIREGUARD_PORT),
        address: format!("{EDGE_TUNNEL}/24"),
        mtu: TUNNEL_MTU,
        peers: vec![Peer {
            public_key: home_keys.public.clone(),
            endpoint: None,
            allowed_ips: format!("{HOME_TUNNEL}/32,10.96.0.0/16"),
        }],
    };
    let home_config = Config {
        interface: HOME_WG.to_owned(),
        keys: home_keys,
        listen_port: None,
        address: format!("{HOME_TUNNEL}/24"),
        mtu: TUNNEL_MTU,
        peers: vec![Peer {
            public_key: edge_keys.public,
            endpoint: Some(SocketAddr::from((EDGE_PUBLIC, WIREGUARD_PORT))),
            allowed_ips: "10.0.0.0/24".to_owned(),
        }],
    };
    let edge_wg = Wireguard::up(edge, edge_config, &folder.join("edge"))?;
    let home_wg = Wireguard::up(home, home_config, &folder.join("home"))?;
    Ok((edge_wg, home_wg))
}

fn script(path: &Path, netns: &str, sockets: &Path, environment: &[(String, String)]) -> Result<PathBuf> {
    let variables: String = environment
        .iter()
        .map(|(name, value)| format!(" {name}='{value}'"))
        .collect();
    let text = format!(
        "#!/bin/sh\n# Runs a command (default: a shell) as a process of {netns}.\n[ $# -gt 0 ] || set -- \"${{SHELL:-/bin/sh}}\"\n\
         exec nsenter --net=/run/netns/{netns} unshare --mount sh -c 'mount --bind {} {SOCKETS} && exec \"$@\"' - \
         env{variables} \"$@\"\n",
        sockets.display()
    );
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    tools::run(Command::new("chmod").arg("755").arg(path))?;
    Ok(path.to_owned())
}
