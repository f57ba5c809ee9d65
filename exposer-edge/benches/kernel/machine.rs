//! What was measured on, and how busy it was.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use exposer_testkit::tools;
use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that are online.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Version of nftables.
    pub nft: String,
    /// Version of Exposer.
    pub exposer: &'static str,
    /// Day of the measurement, UTC.
    pub date: String,
    /// Load average of the last minute before the measurement.
    pub load_before: f64,
    /// The same behind it: the measurement itself adds one.
    pub load_after: f64,
}

impl Machine {
    /// Looks at the machine before the measurement.
    pub fn look() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        Ok(Self {
            cpu: model.to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            // Its first part: the rest names who built it.
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned(),
            nft: first_line(Command::new(tools::find("nft")?).arg("--version"))?,
            exposer: env!("CARGO_PKG_VERSION"),
            date: first_line(Command::new(tools::find("date")?).args(["-u", "+%Y-%m-%d"]))?,
            load_before: load()?,
            load_after: 0.0,
        })
    }

    /// Looks again, behind it.
    pub fn finish(self) -> Result<Self> {
        Ok(Self {
            load_after: load()?,
            ..self
        })
    }

    /// Whether others used the processors too.
    pub fn busy(&self) -> bool {
        self.load_before >= 1.5 || self.load_after >= 2.5
    }
}

fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().context("/proc/loadavg is empty")?;
    Ok(first.parse()?)
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = tools::run(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
