//! The generator and the far end's counters.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{Program, ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use exposer_common::net::checksum::internet_checksum;
use exposer_common::service::L4Proto;
use exposer_testkit::netns::Handle;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::lanes::Kind;
use crate::recipe::{ACK, FRAME_U32, recipe};

#[path = "../../../exposer-ebpf/bench/feed.rs"]
#[expect(dead_code, reason = "shared with the kernel programs, which use the rest")]
pub mod feed;
use feed::{FRAME, Feed, Sunk};

/// `Feed`, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct FeedCell(Feed);
// SAFETY: repr(C), integers only, no padding: 80 bytes of words, then six of four bytes.
unsafe impl aya::Pod for FeedCell {}

/// `Sunk`, as aya wants it.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct SunkCell(Sunk);
// SAFETY: repr(C), two integers of eight bytes.
unsafe impl aya::Pod for SunkCell {}

/// Frames that the kernel hands over together, as a network card's driver does at most.
pub const BATCH: u32 = 64;

/// One turn.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds of one packet, all told.
    pub nanoseconds: f64,
    /// Frames that were made.
    pub made: u64,
    /// Frames that arrived at the far end.
    pub arrived: u64,
    /// Those of them that somebody else took off, in time that was not measured.
    pub outside: u64,
}

/// The loaded programs of the benchmark.
pub struct Generator {
    ebpf: Ebpf,
    feed: Array<MapData, FeedCell>,
    sunk: PerCpuArray<MapData, SunkCell>,
    cpus: usize,
}

impl Generator {
    /// Loads the object that `EXPOSER_BENCH_OBJECT` names; its bare redirect leads to the interface `out`.
    pub fn load(out: u32) -> Result<Self> {
        let path = std::env::var_os("EXPOSER_BENCH_OBJECT")
            .context("EXPOSER_BENCH_OBJECT is not set: run this by `cargo xtask bench kernel`")?;
        let object = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut ebpf = EbpfLoader::new()
            .override_global("OUT", &out, true)
            .load(&object)
            .context("loading the benchmark's programs")?;
        for name in ["generate", "sink"] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let feed = Array::try_from(ebpf.take_map("FEED").context("no map FEED")?)?;
        let sunk = PerCpuArray::try_from(ebpf.take_map("SUNK").context("no map SUNK")?)?;
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("{file}: {error}"))?;
        Ok(Self {
            ebpf,
            feed,
            sunk,
            cpus,
        })
    }

    /// Looks at some of the generator's packets: a wrong one would be dropped early by some contenders and not by others.
    pub fn check(&mut self) -> Result<()> {
        for proto in [L4Proto::Udp, L4Proto::Tcp] {
            self.feed.set(0, FeedCell(recipe(Kind::Ours, proto, ACK, 7)), 0)?;
            for _ in 0..20 {
                let mut out = [0xa5; FRAME];
                let options = TestRunOptions {
                    data_in: Some(&[0xa5; FRAME]),
                    data_out: Some(&mut out),
                    ..TestRunOptions::default()
                };
                let result = self.program::<Xdp>("generate")?.test_run(options)?;
                ensure!(result.return_value == 2, "the generator did not pass: {result:?}");
                let mut pseudo = out[26..34].to_vec();
                pseudo.extend([0, proto as u8, 0, 30]);
                pseudo.extend(&out[34..]);
                ensure!(
                    internet_checksum(&out[14..34]) == [0; 2] && internet_checksum(&pseudo) == [0; 2],
                    "a checksum of the generator's is wrong: {out:02x?}"
                );
            }
        }
        Ok(())
    }

    /// A program of the object.
    pub fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// Lets `packets` frames into the interface `ifindex` of a namespace, on one CPU.
    pub fn run(&mut self, edge: &Handle, ifindex: u32, feed: Feed, packets: u32) -> Result<Sample> {
        self.feed.set(0, FeedCell(feed), 0)?;
        let zero = PerCpuValues::try_from(vec![SunkCell::default(); self.cpus])?;
        self.sunk.set(0, zero, 0)?;
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&FRAME_U32.to_ne_bytes());
        context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
        let program: &mut Xdp = self.program("generate")?;
        let result = edge.run(|| {
            pin_this_thread()?;
            let options = TestRunOptions {
                data_in: Some(&[0; FRAME]),
                ctx_in: Some(&context),
                repeat: packets,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            program
                .test_run(options)
                .context("running the generator (XDP live frames: Linux 5.18)")
        })?;
        // Whatever is still under way.
        std::thread::sleep(Duration::from_millis(3));
        let made = self.feed.get(&0, 0)?.0.made;
        let (mut inside, mut outside) = (0, 0);
        for cell in self.sunk.get(&0, 0)?.iter() {
            inside += cell.0.inside;
            outside += cell.0.outside;
        }
        Ok(Sample {
            nanoseconds: result.duration.as_nanos() as f64,
            made,
            arrived: inside + outside,
            outside,
        })
    }
}

/// One core for generator, contender and far end: the last that this process may use, because interrupts like the first.
fn pin_this_thread() -> Result<()> {
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU to run on")?)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("pinning the generator to one CPU")
}
