//! Entry point of the developer commands: one module for each verb, each with its own options and `run`.
#![expect(
    clippy::print_stderr,
    clippy::arithmetic_side_effects,
    reason = "this program's duty is to tell a person what it does; it counts files and tests, nothing else"
)]

mod build_ebpf;
mod command;
mod debian;
mod paths;
mod toolchain;

use std::process::ExitCode;

use clap::Parser;

/// Builds, tests, demonstrates and packages Exposer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Verb {
    /// Build the kernel programs into target/bpf/exposer-ebpf.o, with a toolchain that is provided where there is none.
    BuildEbpf(build_ebpf::Options),
}

fn main() -> ExitCode {
    match run(Verb::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::BuildEbpf(options) => build_ebpf::run(&options),
    }
}
