//! What the guests told, and the table that it comes to: story × kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stories::Story;
use crate::counts::Counts;

/// How one story ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `passed`, `failed`, `hung`, or `no result`.
    pub result: String,
    /// How long it took in the guest.
    pub took: Duration,
}

/// What one guest told.
#[derive(Debug)]
pub struct Report {
    /// The kernel that was asked for, as `6.1`.
    pub kernel: String,
    /// The release of the kernel that ran, as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// What the guest noticed by the way: `rung`, `wireguard`.
    pub facts: BTreeMap<String, String>,
    /// What made the run worthless beyond single stories.
    pub broken: Vec<String>,
    /// What failing stories printed.
    pub outputs: String,
    /// First lines of warnings that the kernel wrote.
    pub warnings: Vec<String>,
    stories: Vec<(Story, Option<Told>)>,
    running: Option<String>,
}

impl Report {
    /// Nothing is told yet of the stories that are planned.
    pub fn new(kernel: &str, planned: &[Story]) -> Self {
        Self {
            kernel: kernel.to_owned(),
            release: String::new(),
            facts: BTreeMap::new(),
            broken: Vec::new(),
            outputs: String::new(),
            warnings: Vec::new(),
            stories: planned.iter().map(|story| (story.clone(), None)).collect(),
            running: None,
        }
    }

    /// Takes a line of the console.
    pub fn line(&mut self, line: &str) {
        if line.contains("WARNING: CPU") {
            self.warnings.push(line.to_owned());
        }
        let Some(rest) = line.strip_prefix("@@ ") else {
            return;
        };
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "kernel" => rest.clone_into(&mut self.release),
            "broken" => self.broken.push(rest.to_owned()),
            "begin" => self.running = Some(rest.to_owned()),
            "fact" => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.facts.insert(key.to_owned(), value.to_owned());
            }
            "output" => {
                let story = self.running.as_deref().unwrap_or_default();
                self.outputs
                    .push_str(&format!("[{} {story}] {rest}\n", self.kernel));
            }
            "end" => self.end(rest),
            _ => {}
        }
    }

    fn end(&mut self, rest: &str) {
        self.running = None;
        let words: Vec<_> = rest.split(' ').collect();
        let &[suite, name, result, took] = words.as_slice() else {
            return;
        };
        let took = Duration::from_millis(took.parse().unwrap_or(0));
        eprintln!("    {:9} {:6.1} s  {suite} {name}", result, took.as_secs_f64());
        for (story, told) in &mut self.stories {
            if story.suite == suite && story.name == name {
                *told = Some(Told {
                    result: result.to_owned(),
                    took,
                });
            }
        }
    }

    /// What was under way when the guest was last heard of.
    pub fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// Passed and failed stories; one that was never told has failed.
    pub fn counts(&self) -> Counts {
        let passed = self
            .stories
            .iter()
            .filter(|(_, told)| told.as_ref().is_some_and(|told| told.result == "passed"))
            .count();
        Counts {
            passed: passed as u64,
            failed: (self.stories.len() - passed) as u64,
            skipped: 0,
        }
    }

    /// Whether everything passed.
    pub fn is_good(&self) -> bool {
        self.counts().failed == 0 && self.broken.is_empty()
    }

    fn cell(&self, story: &Story) -> String {
        let told = self.stories.iter().find(|(other, _)| other == story);
        match told.and_then(|(_, told)| told.as_ref()) {
            Some(told) => format!("{:6} {:6.1} s", told.result, told.took.as_secs_f64()),
            None => "no result".to_owned(),
        }
    }
}

/// The table of all guests.
pub fn table(stories: &[Story], reports: &[Report], took: &[Duration]) -> String {
    let mut rows: Vec<Vec<String>> = vec![vec!["story".to_owned()]];
    rows.extend(
        stories
            .iter()
            .map(|story| vec![format!("{} {}", story.suite, story.name)]),
    );
    rows.extend(["attach rung", "WireGuard", "all", "time with boot"].map(|name| vec![name.to_owned()]));
    for (report, took) in reports.iter().zip(took) {
        let fact = |name: &str| report.facts.get(name).map_or("-", String::as_str).to_owned();
        let counts = report.counts();
        let mut column = vec![format!("{} ({})", report.kernel, report.release)];
        column.extend(stories.iter().map(|story| report.cell(story)));
        column.extend([fact("rung"), fact("wireguard")]);
        column.push(format!("{} passed, {} failed", counts.passed, counts.failed));
        column.push(format!("{:.0} s", took.as_secs_f64()));
        for (row, cell) in rows.iter_mut().zip(column) {
            row.push(cell);
        }
    }
    aligned(&rows)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(name: &str) -> Story {
        Story {
            suite: "path".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn what_was_told_is_counted_and_what_was_not_has_failed() {
        let stories = [story("a"), story("b"), story("c")];
        let mut report = Report::new("6.1", &stories);
        for line in [
            "[    0.1] noise",
            "@@ kernel 6.1.0-56",
            "@@ begin path a",
            "@@ fact rung clsact",
            "@@ end path a passed 1234",
            "@@ begin path b",
            "@@ output it broke",
            "@@ end path b failed 5",
            "@@ begin path c",
        ] {
            report.line(line);
        }
        assert_eq!(report.counts().to_string(), "1 passed, 2 failed, 0 skipped");
        assert!(!report.is_good());
        assert_eq!(report.running(), Some("path c"));
        assert!(report.outputs.contains("[6.1 path b] it broke"));
        let table = table(&stories, &[report], &[Duration::from_secs(9)]);
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line("path a").contains("passed    1.2 s"), "{table}");
        assert!(
            line("path c").contains("no result") && line("attach rung").contains("clsact"),
            "{table}"
        );
    }

    #[test]
    fn a_broken_guest_is_no_good_even_if_all_passed() {
        let mut report = Report::new("6.1", &[story("a")]);
        report.line("@@ end path a passed 1");
        assert!(report.is_good());
        report.line("@@ broken the module veth can't be loaded");
        assert!(!report.is_good());
    }
}
