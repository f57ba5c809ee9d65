//! `cargo xtask bench`: provides what a benchmark needs, then runs it, optimized.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::command::step;
use crate::{build, build_ebpf, paths, preflight, test, tools};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to measure.
    what: What,
    /// Fewer and shorter rounds: a look, not a result.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Packets per second of the kernel path, beside a bare redirect, plain forwarding and nftables.
    Kernel,
}

/// Runs a benchmark.
///
/// # Errors
///
/// When the machine lacks something, something does not build, or the benchmark can't be carried out.
pub fn run(options: &Options) -> Result<ExitCode> {
    preflight::check("bench", "")?;
    build_ebpf::build(&options.ebpf)?;
    let path = tools::provide()?;
    let name = match options.what {
        What::Kernel => {
            build_ebpf::build_bench(&options.ebpf)?;
            "kernel"
        }
    };
    step("building the benchmark, optimized (some minutes the first time)");
    let bench = || {
        test::environment(build::cargo(), &path)
            .env("EXPOSER_BENCH_OBJECT", paths::bench_object())
            .env("EXPOSER_BENCH_DIR", paths::target().join("bench"))
            .args(["bench", "-p", "exposer-edge", "--bench", name])
    };
    bench().arg("--no-run").run()?;
    step("measuring");
    let quick = options.quick.then_some("--quick");
    bench().arg("--").args(quick).run()?;
    Ok(ExitCode::SUCCESS)
}
