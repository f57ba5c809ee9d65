//! The report: a table for people, rows for programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::lanes::Kind;
use crate::machine::Machine;
use crate::measure::Samples;
use crate::rows::{Row, of, time};
use crate::{Case, Effort};

/// All that was found out.
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Whether it was but a look.
    pub quick: bool,
    /// How much was measured.
    pub effort: Effort,
    /// How the contenders were configured.
    pub lanes: Vec<(Kind, String)>,
    /// Every turn.
    pub results: Vec<(Case, Vec<Samples>)>,
    /// The comparisons.
    pub rows: Vec<Row>,
}

impl Report {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.print(&mut text);
        text
    }

    fn print(&self, out: &mut String) -> std::fmt::Result {
        self.print_header(out)?;
        writeln!(
            out,
            "\n## Comparisons\n\nA ratio above 1 is better for Exposer; in brackets its 95 % interval. *Whole path* has generator and \
             far end in it, on both sides; *without the generator* and *above a bare redirect* have that subtracted, \
             round by round.\n"
        )?;
        writeln!(
            out,
            "| packets | Exposer against | ratio | target | Exposer | the other | unit |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let target = row
                .target
                .map_or_else(String::new, |target| format!("{target} {}", row.verdict()));
            let digits = if row.unit == "packets/s" {
                self.thousands(row)
            } else {
                self.plain(row)
            };
            writeln!(
                out,
                "| {} | {} | **{:.2}** ({:.2}–{:.2}) | {target} | {} | {} | {} |",
                row.name,
                row.peer_name,
                row.ratio,
                row.ratio_low,
                row.ratio_high,
                digits.0,
                digits.1,
                row.unit
            )?;
        }
        self.print_times(out)?;
        writeln!(out, "\n## Configurations\n")?;
        for (kind, configuration) in &self.lanes {
            let (line, rules) = configuration.split_once("nft:\n").unwrap_or((configuration, ""));
            writeln!(out, "* **{}**: {}", kind.name(), line.trim_end_matches("; "))?;
            if !rules.is_empty() {
                writeln!(out, "\n  ```\n{}  ```\n", indented(rules))?;
            }
        }
        Ok(())
    }

    fn print_header(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(out, "# Packets per second of the kernel path\n")?;
        writeln!(
            out,
            "Measured by `cargo xtask bench kernel{}` on {}: Exposer {}, {} ({} CPUs), Linux {}, {}. {} rounds of {} \
             packets for each contender and case, in turns; 64-byte frames, one core does all: generator, contender, \
             far end. Client to home; replies are not measured.",
            if self.quick { " --quick" } else { "" },
            machine.date,
            machine.exposer,
            machine.cpu,
            machine.cpus,
            machine.kernel,
            machine.nft,
            self.effort.rounds,
            self.effort.packets
        )?;
        writeln!(
            out,
            "Frames come by XDP live frames (`BPF_PROG_TEST_RUN`) into a veth's TC ingress and go to another veth, whose \
             peer drops and counts them in native XDP. The tunnel is a veth here, so WireGuard's own cost is in no number. The packets come without a network \
             card: a driver's cost would come on top, for every contender alike."
        )?;
        if machine.busy() {
            writeln!(
                out,
                "\n**Taken on a busy machine** (load average {} before, {} after): ratios hold better than rates.",
                machine.load_before, machine.load_after
            )?;
        }
        if self.quick {
            writeln!(out, "\n**A quick look**: too few rounds for a result.")?;
        }
        Ok(())
    }

    fn print_times(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n## Times\n\nNanoseconds of a packet from the generator to the far end: median (95 % interval)."
        )?;
        writeln!(
            out,
            "*The share of the generator* is what a packet costs that is dropped at TC ingress; where it is most of a \
             contender's time, the generator is the bottleneck, and the contender's rate a lower bound.\n"
        )?;
        writeln!(
            out,
            "| packets | contender | ns | share of the generator | lost | turns repeated |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for (case, all) in &self.results {
            let floor = time(all, Kind::Floor).value;
            for kind in Kind::ALL {
                let (own, samples) = (time(all, kind), of(all, kind));
                let share = 100.0 * floor / own.value;
                let bottleneck = if share > 50.0 && kind != Kind::Floor {
                    ", the bottleneck"
                } else {
                    ""
                };
                let made: u64 = samples.turns.iter().map(|turn| turn.made).sum();
                let arrived: u64 = samples.turns.iter().map(|turn| turn.arrived).sum();
                writeln!(
                    out,
                    "| {} | {} | {:.0} ({:.0}–{:.0}) | {share:.0} %{bottleneck} | {} of {made} | {} |",
                    case.name(),
                    kind.name(),
                    own.value,
                    own.low,
                    own.high,
                    made.saturating_sub(arrived),
                    samples.repeated
                )?;
            }
        }
        Ok(())
    }

    fn thousands(&self, row: &Row) -> (String, String) {
        let show = |value: f64| format!("{:.2} M", value / 1e6);
        (show(row.ours), show(row.peer))
    }

    fn plain(&self, row: &Row) -> (String, String) {
        (format!("{:.0}", row.ours), format!("{:.0}", row.peer))
    }

    /// Writes rows, machine and report below the folder that `EXPOSER_BENCH_DIR` names.
    pub fn write(&self) -> Result<()> {
        let dir = std::env::var_os("EXPOSER_BENCH_DIR")
            .map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let contenders: Vec<_> = self
            .lanes
            .iter()
            .map(|(kind, configuration)| json!({ "name": kind.name(), "configuration": configuration }))
            .collect();
        let machine = json!({
            "machine": self.machine, "busy": self.machine.busy(), "quick": self.quick,
            "rounds": self.effort.rounds, "packets": self.effort.packets, "contenders": contenders,
        });
        for (name, text) in [
            ("kernel.json", serde_json::to_string_pretty(&self.rows)?),
            ("kernel.machine.json", serde_json::to_string_pretty(&machine)?),
            ("kernel.md", self.markdown()),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        eprintln!(
            "    {}/kernel.json, kernel.machine.json, kernel.md",
            dir.display()
        );
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
