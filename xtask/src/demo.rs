//! `cargo xtask demo`: provides what the demonstration needs, then becomes it.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::command::{Cmd, step};
use crate::{build, build_ebpf, paths, preflight, test, tools};

/// Options of the verb.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Options of the demonstration itself: --keep, --kubeconfig PATH, … (--help prints them all).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Runs the demonstration.
///
/// # Errors
///
/// When the machine lacks something, or something does not build.
pub fn run(options: &Options) -> Result<ExitCode> {
    let help = options.args.iter().any(|arg| arg == "--help" || arg == "-h");
    let path = if help {
        std::env::var_os("PATH").unwrap_or_default()
    } else {
        preflight::check("demo", "")?;
        build_ebpf::build(&build_ebpf::Options::default())?;
        tools::provide()?
    };
    build::binaries_for_tests()?;
    let program = paths::target().join("debug/exposer-demo");
    if !program.is_file() {
        bail!(
            "{} was not built: this checkout has no demonstration",
            program.display()
        );
    }
    step("starting the demonstration");
    let cmd = Cmd::new(&program)
        .args(&options.args)
        .env("EXPOSER_EBPF_OBJECT", paths::object());
    // It takes this process's place, so that Ctrl-C and the exit status are its own.
    let error = test::environment(cmd, &path).build().exec();
    bail!("can't start {}: {error}", program.display());
}
