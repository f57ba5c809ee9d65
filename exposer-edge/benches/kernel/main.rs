//! `cargo xtask bench kernel`: packets per second of the kernel path on one core, beside what one would use instead.
//!
//! A generator (XDP live frames through `BPF_PROG_TEST_RUN`) lets frames into the stack of a veth; what is measured
//! takes them there and forwards them to another veth, whose peer drops them in native XDP and counts. Every contender
//! has namespaces of its own that differ in nothing but the contender; all are measured in one process, in turns.
//!
//! The tunnel is a veth too: WireGuard's cryptography, in userspace above all, would be what is measured.
//!
//! Needs root.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a program for developers, whose duty is to print"
)]

mod filling;
mod generator;
mod lanes;
mod machine;
mod measure;
mod recipe;
mod report;
mod rows;
mod statistics;

use anyhow::{Context as _, Result};
use clap::Parser;
use exposer_common::service::L4Proto;

/// Measures the kernel path.
#[derive(Debug, Parser)]
struct Args {
    /// Fewer and shorter rounds: a look, not a result.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Turns that each contender gets in each case.
    rounds: usize,
    /// Packets of a turn.
    packets: u32,
}

/// What a case's packets are.
#[derive(Clone, Copy, Debug)]
struct Case {
    proto: L4Proto,
    flows: u32,
}

impl Case {
    fn name(self) -> String {
        let kind = match self.proto {
            L4Proto::Udp => "UDP",
            L4Proto::Tcp => "TCP ACK",
        };
        format!(
            "{kind}, {} flow{}",
            self.flows,
            if self.flows == 1 { "" } else { "s" }
        )
    }
}

/// Few flows first: those that a case makes are there for the next.
const FLOWS: [u32; 3] = [1, 1_000, 100_000];

fn main() -> Result<()> {
    let args = Args::parse();
    let effort = if args.quick {
        Effort {
            rounds: 5,
            packets: 100_000,
        }
    } else {
        Effort {
            rounds: 15,
            packets: 250_000,
        }
    };
    let machine = machine::Machine::look()?;
    let (mut lanes, mut generator) = lanes::Lanes::set_up()?;
    let mut results = Vec::new();
    for proto in [L4Proto::Udp, L4Proto::Tcp] {
        for flows in FLOWS {
            let case = Case { proto, flows };
            eprintln!("    {} …", case.name());
            filling::fill(&mut lanes, &mut generator, case)
                .with_context(|| format!("preparing the flows of {}", case.name()))?;
            let samples = measure::case(&mut lanes, &mut generator, case, effort)?;
            results.push((case, samples));
        }
    }
    let rows = rows::rows(&results);
    let report = report::Report {
        machine: machine.finish()?,
        quick: args.quick,
        effort,
        lanes: lanes.configurations(),
        results,
        rows,
    };
    print!("{}", report.markdown());
    report.write()
}
