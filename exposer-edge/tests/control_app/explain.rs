//! `exposer-edge explain` beside the daemon on the kernel path, in the standard network of the testkit: what it says of a
//! served port, of clients that the programs do not believe, of another program at the hook, of a firewall, and of a
//! daemon that is gone.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use exposer_common::proto::message::Path as Via;
use exposer_testkit::topology::{CLIENT_FAR, Options, Topology, WAN};
use exposer_testkit::traffic::Server;
use serde_json::Value;

use super::support::{Agent, Daemon, TOKEN, only, patiently, public, web};

struct Stage(Topology);

impl Stage {
    /// Exit status and text.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self
            .0
            .edge
            .command(env!("CARGO_BIN_EXE_exposer-edge"))
            .unwrap()
            .arg("explain")
            .args(arguments)
            .arg("--bpffs")
            .arg(self.0.bpffs.path())
            .output()
            .unwrap();
        let mut text = String::from_utf8(output.stdout).unwrap();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), text)
    }

    /// Runs, and compares exit status and parts of the text.
    fn says(&self, arguments: &[&str], status: i32, parts: &[&str]) {
        let (code, text) = self.run(arguments);
        assert_eq!(code, status, "explain {arguments:?}:\n{text}");
        for part in parts {
            assert!(
                text.contains(part),
                "\"{part}\" is not in explain {arguments:?}:\n{text}"
            );
        }
    }
}

#[test]
fn a_port_is_explained_in_health_and_in_trouble() {
    let topology = Topology::new("ctlexpl", Options::default()).unwrap();
    let service = IpAddr::from([10, 96, 0, 10]);
    topology.add_service_address(service).unwrap();
    let _server = Server::tcp(&topology.home, SocketAddr::from((service, 80)), "web-at-home").unwrap();
    let flags = [
        "--datapath=kernel".to_owned(),
        "--heartbeat-max-age=5s".to_owned(),
        format!("--bpffs={}", topology.bpffs.path().display()),
    ];
    let daemon = Daemon::start(&topology.edge, Daemon::config(topology.folder(), &flags));
    let mut agent = Agent::connect(&topology.home, TOKEN).unwrap().welcomed();
    assert_eq!(
        only(&agent.snapshot(vec![web(8080)])),
        (Some(8080), Some(Via::Kernel), None)
    );
    let stage = Stage(topology);
    patiently(|| {
        // The status is published once a second.
        let (code, text) = stage.run(&["shop/web"]);
        anyhow::ensure!(code == 0 && text.contains(": kernel path"), "{text}");
        Ok(())
    })
    .unwrap();
    healthy(&stage);
    clients(&stage);
    another_program(&stage);
    firewall(&stage);
    drop(agent);
    daemon.end().unwrap();
    without_daemon(&stage);
}

fn healthy(stage: &Stage) {
    stage.says(
        &["shop/web"],
        0,
        &[
            "8080/tcp for home:shop/web at 10.96.0.10:80: kernel path",
            "wan0 (public): wan_ingress tcx, the highest rung there is",
            "wg0 (tunnel): tunnel_ingress tcx",
            "before it: nobody",
            "fresh",
            "As good as it gets.",
        ],
    );
    stage.says(&["web/shop"], 1, &["no Service web/shop is known"]);
    stage.says(&["70000"], 1, &["70000 is no port"]);
    stage.says(
        &["8081/tcp", "--client", "44.128.7.7"],
        1,
        &[
            "8081/tcp: not served",
            "[UNMANAGED]",
            "nobody serves it",
            "annotate the Service",
        ],
    );
    let (code, text) = stage.run(&["--client", "44.128.7.7", "--output", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0, "{answer:#}");
    let at = |pointer: &str| answer.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/as_good_as_it_gets"), true, "{answer:#}");
    assert_eq!(at("/ports/0/path"), "kernel", "{answer:#}");
    assert_eq!(at("/ports/0/packet/end"), "kernel", "{answer:#}");
}

fn clients(stage: &Stage) {
    stage.says(
        &["8080", "--client", "44.128.7.7"],
        0,
        &[
            "none: a new one",
            "10.96.0.10:80",
            "[FORWARD_NEW]",
            "the kernel path serves it",
        ],
    );
    stage.says(
        &["8080", "--client", "192.168.1.5"],
        0,
        &["[SOURCE_MARTIAN]", "private", "the userspace path serves it"],
    );
    stage.says(
        &["8080", "--client", "10.96.3.3"],
        0,
        &["[SOURCE_MARTIAN]", "inside a home prefix"],
    );
    stage.says(
        &["8080", "--client", "44.128.0.2"],
        0,
        &["one of this host's own", "nobody serves it"],
    );
    stage.says(
        &["8080", "--client", "2001:db8::1"],
        0,
        &["[NOT_IPV4]", "the userspace path serves it"],
    );
    let held = stage.0.client.run(|| {
        let socket = connect_from(CLIENT_FAR.into());
        Ok(socket)
    });
    let held = held.unwrap();
    stage.says(
        &["8080", "--client", "44.128.7.7"],
        0,
        &[
            "1 connections of this client are on the kernel path",
            "1 of 28976",
        ],
    );
    drop(held);
}

/// A connection to the public port from this address.
fn connect_from(address: IpAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address, 0)).unwrap();
        let stream = socket.connect(public(8080)).await.unwrap();
        stream.into_std().unwrap()
    })
}

fn another_program(stage: &Stage) {
    let pin = stage.0.bpffs.path().join("meter");
    let path = std::ffi::CString::new(pin.to_str().unwrap()).unwrap();
    let link = stage
        .0
        .edge
        .run(|| {
            let index = nix::net::if_::if_nametoindex(WAN)?;
            let program = load()?;
            pin_at(&program, &path)?;
            Ok(attach(&program, index)?)
        })
        .unwrap();
    let tc = |words: &str| {
        let mut command = stage.0.edge.command("tc").unwrap();
        let status = command.args(words.split(' ')).status().unwrap();
        assert!(status.success(), "tc {words}");
    };
    tc(&format!("qdisc add dev {WAN} clsact"));
    let pin = pin.display();
    tc(&format!(
        "filter add dev {WAN} ingress prio 7 bpf direct-action object-pinned {pin}"
    ));
    stage.says(&["8080"], 0, &["after it:  meter (tcx id ", " priority 7)"]);
    tc(&format!("qdisc del dev {WAN} clsact"));
    drop(link);
    stage.says(&["8080"], 0, &["after it:  nobody"]);
}

fn firewall(stage: &Stage) {
    let nft = |words: &str| {
        let status = stage.0.edge.command("nft").unwrap().arg(words).status().unwrap();
        assert!(status.success(), "nft {words}");
    };
    nft(
        "add table inet guard; add chain inet guard input { type filter hook input priority 0; }; \
         add rule inet guard input tcp dport 8080 drop",
    );
    stage.says(
        &["8080", "--client", "192.168.1.5"],
        1,
        &[
            "MEND  the firewall blocks the userspace path of 8080/tcp",
            "table inet guard, chain input",
            "nft insert rule inet guard input tcp dport 8080 accept",
            "nobody serves it",
            "Something is to be mended",
        ],
    );
    nft("delete table inet guard");
    stage.says(&["8080"], 0, &["As good as it gets."]);
}

fn without_daemon(stage: &Stage) {
    stage.says(
        &["8080/tcp"],
        1,
        &[
            "The daemon does not answer",
            "8080/tcp to 10.96.0.10:80",
            "systemctl start exposer-edge",
            "wan_ingress tcx",
        ],
    );
    stage.says(&["shop/web"], 1, &["only it knows the names of Services"]);
    patiently(|| {
        let (code, text) = stage.run(&["8080", "--client", "44.128.7.7"]);
        anyhow::ensure!(code == 1 && text.contains("[CONTROL_STALE]"), "{text}");
        assert!(
            text.contains("too old") && text.contains("nobody listens"),
            "{text}"
        );
        assert!(text.contains("8080/tcp to 10.96.0.10:80: not served"), "{text}");
        Ok(())
    })
    .unwrap();
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD` (linux/bpf.h).
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttr {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: [u64; 2],
}

/// The head of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct PinAttr {
    path: u64,
    program: u32,
    flags: u32,
}

/// A program of TC that passes everything on (`r0 = -1; exit`), called `meter`.
fn load() -> std::io::Result<OwnedFd> {
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let mut name = [0_u8; 16];
    name.iter_mut().zip(b"meter").for_each(|(to, from)| *to = *from);
    let attr = LoadAttr {
        kind: 3,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        version: 0,
        flags: 0,
        name,
    };
    descriptor(bpf(5, &attr)?)
}

/// Last at the ingress of the interface: `BPF_TCX_INGRESS` without a word about the order.
fn attach(program: &OwnedFd, interface: u32) -> std::io::Result<OwnedFd> {
    let attr = LinkAttr {
        program: program.as_raw_fd().try_into().unwrap(),
        interface,
        attach_type: 46,
        flags: 0,
        relative: [0; 2],
    };
    descriptor(bpf(28, &attr)?)
}

fn pin_at(program: &OwnedFd, path: &std::ffi::CStr) -> std::io::Result<()> {
    let attr = PinAttr {
        path: path.as_ptr() as u64,
        program: program.as_raw_fd().try_into().unwrap(),
        flags: 0,
    };
    bpf(6, &attr).map(|_| ())
}

fn bpf<T>(command: i32, attr: &T) -> std::io::Result<i64> {
    // SAFETY: the attributes are those of the command, and live until it returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(result)
}

fn descriptor(number: i64) -> std::io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(std::io::Error::other)?;
    // SAFETY: the kernel gave this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
