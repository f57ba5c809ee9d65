//! Real WireGuard interfaces inside namespaces: the kernel's where it has one, else `wireguard-go`.
//!
//! Instances of `wireguard-go` answer on a socket in `/var/run/wireguard`, one folder for all namespaces. A namespace
//! whose interface name may exist elsewhere (the edge's `wg0`) therefore needs
//! [`crate::netns::Netns::private_mount`] over that folder; `wg show` in the same namespace then finds its own.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::netns::Handle;
use crate::process::{Process, wait_until};
use crate::tools;

/// Where userspace implementations put their control sockets.
pub const SOCKETS: &str = "/var/run/wireguard";

/// How long `wireguard-go` may take to make its interface, and to go: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A private key and its public half, both base64 as `wg` writes them.
#[derive(Clone)]
pub struct Keys {
    private: String,
    /// The public key.
    pub public: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// A fresh pair from `wg genkey` and `wg pubkey`.
    ///
    /// # Errors
    ///
    /// There is no `wg`.
    pub fn generate() -> Result<Self> {
        let wg = tools::find("wg")?;
        let private = tools::stdout(std::process::Command::new(&wg).arg("genkey"))?
            .trim()
            .to_owned();
        let mut child = std::process::Command::new(&wg)
            .arg("pubkey")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `wg pubkey`")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(private.as_bytes())
                .context("cannot write to `wg pubkey`")?;
        }
        let output = child.wait_with_output()?;
        let public = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || public.is_empty() {
            bail!("`wg pubkey` failed ({})", output.status);
        }
        Ok(Self { private, public })
    }
}

/// The other end of a tunnel.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its public key.
    pub public_key: String,
    /// Where to reach it, if we are the one to begin.
    pub endpoint: Option<SocketAddr>,
    /// Prefixes that go to it and may come from it, comma separated.
    pub allowed_ips: String,
}

/// What an interface is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub interface: String,
    /// Its keys.
    pub keys: Keys,
    /// The UDP port that it listens on, if it matters.
    pub listen_port: Option<u16>,
    /// Its address with prefix length.
    pub address: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The other ends.
    pub peers: Vec<Peer>,
}

impl Config {
    /// The configuration in the format of wg(8) `setconf`.
    fn text(&self) -> String {
        let mut text = format!("[Interface]\nPrivateKey = {}\n", self.keys.private);
        if let Some(port) = self.listen_port {
            text.push_str(&format!("ListenPort = {port}\n"));
        }
        for peer in &self.peers {
            text.push_str(&format!(
                "\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
                peer.public_key, peer.allowed_ips
            ));
            if let Some(endpoint) = peer.endpoint {
                text.push_str(&format!("Endpoint = {endpoint}\nPersistentKeepalive = 25\n"));
            }
        }
        text
    }
}

/// A WireGuard interface; gone when dropped.
#[derive(Debug)]
pub struct Wireguard {
    netns: Handle,
    config: Config,
    folder: PathBuf,
    /// The userspace implementation, where the kernel has none.
    process: Option<Process>,
}

impl Wireguard {
    /// Makes the interface and sets it up. Its log and configuration are kept in `folder`.
    ///
    /// # Errors
    ///
    /// Neither the kernel's WireGuard nor `wireguard-go`, or a setting is refused.
    pub fn up(netns: &Handle, config: Config, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut this = Self {
            netns: netns.clone(),
            config,
            folder: folder.to_owned(),
            process: None,
        };
        this.make()?;
        Ok(this)
    }

    /// Whether the kernel's own implementation carries it.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.process.is_none()
    }

    /// What carries it, for a report.
    #[must_use]
    pub fn implementation(&self) -> &'static str {
        if self.is_kernel() {
            "kernel"
        } else {
            "wireguard-go"
        }
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.config.interface
    }

    /// Takes the interface away, as `wg-quick down` with `SaveConfig` does: where the peers are is remembered, so that
    /// [`Self::up_again`] can begin the conversation itself.
    ///
    /// # Errors
    ///
    /// The userspace implementation does not end.
    pub fn down(&mut self) -> Result<()> {
        self.remember_endpoints();
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process
                .end(nix::sys::signal::Signal::SIGTERM, PATIENCE)
                .map(|_| ()),
            None => self
                .netns
                .ip(&format!("link del {}", self.config.interface))
                .map(|_| ()),
        }
    }

    /// Makes the interface again after [`Self::down`], with a new interface index.
    ///
    /// # Errors
    ///
    /// As [`Self::up`].
    pub fn up_again(&mut self) -> Result<()> {
        self.make()
    }

    /// Lets another prefix go to the first peer and come from it.
    ///
    /// # Errors
    ///
    /// The prefix is refused, or there is no peer.
    pub fn allow(&mut self, prefix: &str) -> Result<()> {
        let peer = self
            .config
            .peers
            .first_mut()
            .context("the interface has no peer")?;
        peer.allowed_ips.push(',');
        peer.allowed_ips.push_str(prefix);
        let mut command = self.netns.command("wg")?;
        command.args(["set", &self.config.interface, "peer", &peer.public_key]);
        tools::run(command.args(["allowed-ips", &peer.allowed_ips])).map(|_| ())
    }

    /// Waits for a handshake with every peer.
    ///
    /// # Errors
    ///
    /// None within `patience`.
    pub fn wait_for_handshake(&self, patience: Duration) -> Result<Duration> {
        let name = &self.config.interface;
        let ((), took) = wait_until(&format!("a WireGuard handshake on {name}"), patience, || {
            let mut command = self.netns.command("wg")?;
            let text = tools::stdout(command.args(["show", name, "latest-handshakes"]))?;
            let pending = text.lines().any(|line| line.ends_with("\t0"));
            if pending || text.trim().is_empty() {
                bail!("`wg show {name} latest-handshakes` says: {text}");
            }
            Ok(())
        })?;
        Ok(took)
    }

    fn remember_endpoints(&mut self) {
        let name = self.config.interface.clone();
        let shown = self
            .netns
            .command("wg")
            .and_then(|mut command| tools::stdout(command.args(["show", &name, "endpoints"])));
        // The interface may be gone already: then there is nothing to remember.
        for line in shown.unwrap_or_default().lines() {
            let Some((key, endpoint)) = line.split_once('\t') else {
                continue;
            };
            for peer in &mut self.config.peers {
                if peer.public_key == key {
                    peer.endpoint = endpoint.parse().ok().or(peer.endpoint);
                }
            }
        }
    }

    fn make(&mut self) -> Result<()> {
        let name = self.config.interface.clone();
        if self.netns.ip(&format!("link add {name} type wireguard")).is_err() {
            self.process = Some(self.start_userspace(&name)?);
        }
        let file = self.folder.join(format!("{name}.conf"));
        write_private(&file, &self.config.text())?;
        let mut command = self.netns.command("wg")?;
        tools::run(command.args(["setconf", &name]).arg(&file))?;
        self.netns
            .ip(&format!("addr add {} dev {name}", self.config.address))?;
        self.netns
            .ip(&format!("link set {name} mtu {} up", self.config.mtu))?;
        Ok(())
    }

    fn start_userspace(&self, name: &str) -> Result<Process> {
        tools::find("wireguard-go").context("this kernel has no WireGuard of its own")?;
        let mut command = self.netns.command("wireguard-go")?;
        // Without this it prints a banner that advises against its use on Linux, and waits.
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        command.env("LOG_LEVEL", "error").args(["--foreground", name]);
        let socket = self
            .netns
            .seen_from_outside(Path::new(SOCKETS))
            .join(format!("{name}.sock"));
        let mut process = Process::start("wireguard-go", command, &self.folder.join(format!("{name}.log")))?;
        wait_until("wireguard-go to make its interface", PATIENCE, || {
            process.alive()?;
            // Not by `wg`: it deletes a socket that refuses, which this one does for the moment between bind(2) and
            // listen(2), and wireguard-go ends when its socket is gone.
            UnixStream::connect(&socket).with_context(|| format!("{} does not answer", socket.display()))?;
            self.netns.ip(&format!("link show dev {name}"))
        })
        .map_err(|error| anyhow!("{error:#}\n{}", process.tail()))?;
        Ok(process)
    }
}

impl Drop for Wireguard {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
