//! Entry point of the developer commands: one module for each verb, each with its own options and `run`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::arithmetic_side_effects,
    reason = "this program's duty is to tell a person what it does; it counts files and tests, nothing else"
)]

mod bench;
mod build;
mod build_ebpf;
mod command;
mod counts;
mod debian;
mod demo;
mod dist;
mod files;
mod house;
mod lint;
mod paths;
mod preflight;
mod stamp;
mod suites;
mod test;
mod toolchain;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Builds, tests, demonstrates and packages Exposer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Verb {
    /// Build the kernel programs into target/bpf/exposer-ebpf.o, with a toolchain that is provided where there is none.
    BuildEbpf(build_ebpf::Options),
    /// Build the kernel programs, then the binaries that carry them.
    Build(build::Options),
    /// Run every test, also those that need root (this machine's kernel, namespaces, WireGuard), and count them.
    Test(test::Options),
    /// Check formatting, clippy for the host and for the kernel programs, docs, house rules and dependencies.
    Lint(lint::Options),
    /// Boot Debian's stock kernels in QEMU and run there the tests that depend on the kernel.
    Vm(vm::Options),
    /// Show the main job in namespaces of its own: client, edge and home, with real WireGuard and a Kubernetes API.
    Demo(demo::Options),
    /// Measure the kernel path beside what one would use instead, in namespaces; results in target/bench.
    Bench(bench::Options),
    /// Print where the programs come from that tests and demo call, providing those that are missing.
    Tools,
    /// Pack optimized binaries and the files of deploy/ into target/dist, with checksums.
    Dist(dist::Options),
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
        Verb::Build(options) => build::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Lint(options) => lint::run(&options),
        Verb::Vm(options) => vm::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Tools => tools::run(),
        Verb::Dist(options) => dist::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Verb::command().debug_assert();
    }

    #[test]
    fn the_demonstrations_options_pass_through_unparsed() {
        let verb = Verb::try_parse_from(["xtask", "demo", "--keep", "--kubeconfig", "/k", "--help"]).unwrap();
        let Verb::Demo(options) = verb else {
            panic!("{verb:?}")
        };
        assert_eq!(options.args, ["--keep", "--kubeconfig", "/k", "--help"]);
    }
}
