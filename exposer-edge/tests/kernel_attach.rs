//! The attach ladder over real WireGuard: the rung that this kernel has, replacement under traffic, an interface that
//! was made anew, and cleanup. What holds for TCX holds for clsact (Linux before 6.6) too. Needs root.
//!
//! `cargo xtask vm` reads the line `attach rung: …` from here.

mod kernel_stage;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exposer_common::model::Protocol;
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::attach::Rung;
use exposer_edge::datapath::kernel::cleanup::cleanup;
use exposer_edge::datapath::{Datapath as _, kernel::KernelDatapath};
use exposer_testkit::tools;
use exposer_testkit::topology::{CLIENT_FAR, Options, TUNNEL, Topology, WAN};
use exposer_testkit::traffic::Server;
use exposer_testkit::traffic::continuous::UdpCounter;
use kernel_stage::{DRAIN, SERVICE, Stage, binding, open};

/// The first kernel with TCX.
const TCX: (u32, u32) = (6, 6);
const PROGRAMS: [(&str, &str); 2] = [(WAN, "wan_ingress"), (TUNNEL, "tunnel_ingress")];

fn expected() -> Result<Rung> {
    let name = nix::sys::utsname::uname()?;
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let version = (
        numbers.next().context("no version")??,
        numbers.next().context("no version")??,
    );
    Ok(if version >= TCX { Rung::Tcx } else { Rung::Clsact })
}

fn rungs(datapath: &KernelDatapath) -> Vec<Option<Rung>> {
    datapath
        .attached()
        .iter()
        .map(|(_, at)| at.map(|at| at.rung))
        .collect()
}

/// How often the program stands at the interface's clsact hook, as `tc` sees it.
fn filters(topology: &Topology, interface: &str, program: &str) -> Result<usize> {
    let mut command = topology.edge.command("tc")?;
    let text = tools::stdout(command.args(["filter", "show", "dev", interface, "ingress"]))?;
    let of_ours = format!(" {program} ");
    Ok(text
        .lines()
        .filter(|line| line.contains("handle") && line.contains(&of_ours))
        .count())
}

/// Where each program stands: once at its own hook on the rung, and nowhere twice.
fn require_in_place(topology: &Topology, datapath: &KernelDatapath, rung: Rung) -> Result<()> {
    ensure!(rungs(datapath) == [Some(rung); 2], "{:?}", datapath.attached());
    let wanted = usize::from(rung == Rung::Clsact);
    for (interface, program) in PROGRAMS {
        let found = filters(topology, interface, program)?;
        ensure!(
            found == wanted,
            "{found} filters {program} on {interface}, expected {wanted}"
        );
    }
    Ok(())
}

fn serve(datapath: &mut KernelDatapath) -> Result<()> {
    datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
    Ok(())
}

fn backends(stage: &Stage) -> Result<[Server; 2]> {
    let home = stage.topology.home.handle();
    let address = SocketAddr::from((SERVICE, 9000));
    Ok([
        Server::tcp(&home, address, "tcp")?,
        Server::udp(&home, address, "udp")?,
    ])
}

#[test]
fn the_rung_of_this_kernel_carries_traffic() -> Result<()> {
    let rung = expected()?;
    let mut stage = Stage::new("krung", Options::default())?;
    let _backends = backends(&stage)?;
    serve(&mut stage.datapath)?;
    require_in_place(&stage.topology, &stage.datapath, rung)?;
    eprintln!("attach rung: {}", rung.as_str());
    let (client, public) = (stage.client(CLIENT_FAR), stage.topology.public(25_565));
    client.download(public, 1_000_000)?.check()?;
    client.udp_echo(public, 50, 16, 1300)?.check()?;
    ensure!(
        stage.reason(Reason::ForwardNew)? == 2 && stage.flows()?.len() == 2,
        "one flow of each protocol"
    );
    Ok(())
}

#[test]
fn replaced_under_traffic_without_a_loss() -> Result<()> {
    let rung = expected()?;
    let mut stage = Stage::new("kreplace", Options::default())?;
    let _backends = backends(&stage)?;
    serve(&mut stage.datapath)?;
    let (client, public) = (stage.client(CLIENT_FAR), stage.topology.public(25_565));
    client.udp_ping(public, Duration::from_secs(5))?;
    let counter = UdpCounter::start(&client, public, Duration::from_millis(5))?;
    let Stage {
        topology,
        mut datapath,
    } = stage;
    for _ in 0..4 {
        // The old one still lives, then it does not: a new daemon may come before or after.
        let next = open(&topology)?;
        std::thread::sleep(Duration::from_millis(200));
        drop(datapath);
        std::thread::sleep(Duration::from_millis(200));
        datapath = next;
        serve(&mut datapath)?;
        require_in_place(&topology, &datapath, rung)?;
    }
    let report = counter.stop()?;
    ensure!(
        report.sent > 100 && report.lost == 0 && report.refused == 0 && report.duplicates == 0,
        "{report:?}"
    );
    client.download(public, 300_000)?.check()
}

#[test]
fn an_interface_that_was_made_anew_gets_its_program_again() -> Result<()> {
    let rung = expected()?;
    let mut stage = Stage::new("kanew", Options::default())?;
    let _backends = backends(&stage)?;
    serve(&mut stage.datapath)?;
    stage.topology.restart_edge_tunnel()?;
    stage
        .topology
        .home_wg
        .wait_for_handshake(Duration::from_secs(30))?;
    stage.renew(|_| ())?;
    require_in_place(&stage.topology, &stage.datapath, rung)?;
    stage
        .client(CLIENT_FAR)
        .download(stage.topology.public(25_565), 300_000)?
        .check()
}

#[test]
fn cleanup_leaves_nothing_attached_and_nothing_pinned() -> Result<()> {
    let rung = expected()?;
    let mut stage = Stage::new("kclean", Options::default())?;
    let _backends = backends(&stage)?;
    serve(&mut stage.datapath)?;
    let Stage { topology, datapath } = stage;
    drop(datapath);
    let bpffs = topology.bpffs.path().join("exposer");
    let interfaces = [WAN.to_owned(), TUNNEL.to_owned(), "no-such-if".to_owned()];
    let run = |dry_run| topology.edge.run(|| Ok(cleanup(&bpffs, &interfaces, dry_run)));
    let clsact = usize::from(rung == Rung::Clsact);
    let would = run(true)?;
    ensure!(!would.is_empty() && would.failed.is_empty(), "{would:?}");
    for (interface, program) in PROGRAMS {
        ensure!(
            filters(&topology, interface, program)? == clsact,
            "a dry run touches nothing"
        );
    }
    let removed = run(false)?;
    ensure!(removed.failed.is_empty(), "{removed:?}");
    ensure!(
        removed.filters.len() == 2 * clsact && removed.links.len() == 2 - 2 * clsact,
        "{removed:?}"
    );
    for (interface, program) in PROGRAMS {
        ensure!(
            filters(&topology, interface, program)? == 0,
            "{program} is still on {interface}"
        );
    }
    ensure!(!bpffs.exists(), "pins are left in {}", bpffs.display());
    let again = run(false)?;
    ensure!(again.is_empty(), "nothing is left to remove: {again:?}");
    Ok(())
}
