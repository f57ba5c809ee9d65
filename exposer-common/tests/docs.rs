//! ARCHITECTURE.md against the code: every map with its key, value and entries, every reason with its number and
//! verdict, every program. Whoever adds one finds here that the document does not know it yet.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "test code: a failing test is what a panic is for"
)]

use std::path::Path;

use exposer_common::flow::{Bucket, Control, FlowEntry, FlowKey, FragmentKey, FragmentPorts, SourceKey};
use exposer_common::link::{LINK_SLOTS, LinkEntry};
use exposer_common::names;
use exposer_common::service::{PORT_SLOTS, ServiceCounters, ServiceEntry, ServiceKey};
use exposer_common::verdict::{Reason, Verdict};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of every table row whose first or second cell is a name in backticks: name and all cells.
fn rows(text: &str, name_at: usize) -> Vec<(String, Vec<String>)> {
    text.lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| {
            let cells: Vec<String> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect();
            let name = cells
                .get(name_at)?
                .strip_prefix('`')?
                .strip_suffix('`')?
                .to_owned();
            Some((name, cells))
        })
        .collect()
}

/// The text between a heading and the next one of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text
        .find(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no section \"{heading}\""));
    let body = &text[start + 1..];
    &body[..body[3..].find("\n## ").map_or(body.len(), |end| end + 3)]
}

fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn every_reason_stands_with_its_number_and_verdict() {
    let text = document("ARCHITECTURE.md");
    let rows = rows(section(&text, "Reasons"), 1);
    let documented: Vec<(String, String, String)> = rows
        .into_iter()
        .map(|(name, cells)| (cells[0].clone(), name, cells[2].clone()))
        .collect();
    let real: Vec<(String, String, String)> = Reason::ALL
        .iter()
        .map(|reason| {
            let verdict = match reason.verdict() {
                Verdict::Pass => "pass",
                Verdict::Redirect => "redirect",
                Verdict::Drop => "drop",
            };
            (
                reason.index().to_string(),
                reason.as_str().to_owned(),
                verdict.to_owned(),
            )
        })
        .collect();
    assert_eq!(documented, real, "the table of reasons in ARCHITECTURE.md");
}

#[test]
fn every_map_stands_with_its_shape() {
    let text = document("ARCHITECTURE.md");
    let rows = rows(section(&text, "Maps"), 0);
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, names::MAPS, "the table of maps in ARCHITECTURE.md");
    let shapes = [
        (names::MAP_PORTS, None, 1, PORT_SLOTS),
        (
            names::MAP_SERVICES,
            Some(size_of::<ServiceKey>()),
            size_of::<ServiceEntry>(),
            names::SERVICE_SLOTS,
        ),
        (
            names::MAP_FLOWS,
            Some(size_of::<FlowKey>()),
            size_of::<FlowEntry>(),
            names::FLOW_SLOTS,
        ),
        (
            names::MAP_REPLIES,
            Some(size_of::<FlowKey>()),
            size_of::<FlowEntry>(),
            names::FLOW_SLOTS,
        ),
        (
            names::MAP_HANDED,
            Some(size_of::<FlowKey>()),
            size_of::<u64>(),
            names::HANDED_SLOTS,
        ),
        (
            names::MAP_FRAGMENTS,
            Some(size_of::<FragmentKey>()),
            size_of::<FragmentPorts>(),
            names::FRAGMENT_SLOTS,
        ),
        (names::MAP_ICMP_BUDGET, None, size_of::<Bucket>(), 1),
        (
            names::MAP_UNREPLIED,
            None,
            size_of::<Bucket>(),
            names::UNREPLIED_OVERALL + 1,
        ),
        (
            names::MAP_SOURCES,
            Some(size_of::<SourceKey>()),
            size_of::<Bucket>(),
            names::SOURCE_SLOTS,
        ),
        (names::MAP_LINKS, None, size_of::<LinkEntry>(), LINK_SLOTS),
        (names::MAP_NETS, None, 1, names::NET_SLOTS),
        (names::MAP_CONTROL, None, size_of::<Control>(), 1),
        (names::MAP_REASONS, None, size_of::<u64>(), Reason::SLOTS),
        (
            names::MAP_SERVICE_STATS,
            None,
            size_of::<ServiceCounters>(),
            names::SERVICE_SLOTS,
        ),
    ];
    for ((name, cells), (map, key, value, entries)) in rows.iter().zip(shapes) {
        assert_eq!(name, map);
        if let Some(key) = key {
            assert!(
                cells[2].contains(&format!(", {key} B")),
                "{name}: key {key} B, not {:?}",
                cells[2]
            );
        }
        let value_text = match value {
            8 => "`u64`".to_owned(),
            bytes => format!(", {bytes} B"),
        };
        assert!(
            cells[3].contains(&value_text),
            "{name}: value {value} B, not {:?}",
            cells[3]
        );
        assert_eq!(cells[4], grouped(entries), "{name}: entries");
    }
}

#[test]
fn names_that_an_operator_types_are_there() {
    let text = document("ARCHITECTURE.md");
    let pins = format!("{}/v{}/", names::DEFAULT_BPFFS, names::LAYOUT_VERSION);
    for name in [
        names::PROG_WAN_INGRESS,
        names::PROG_TUNNEL_INGRESS,
        names::GLOBAL_WAN_ZONE,
        names::GLOBAL_TUNNEL_ZONE,
        pins.as_str(),
    ] {
        assert!(text.contains(name), "ARCHITECTURE.md does not mention {name}");
    }
}

/// Links between the documents, and from them to files of the source tree, lead somewhere.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in ["README.md", "ARCHITECTURE.md", "DEVELOPING.md", "CHANGELOG.md"] {
        let text = document(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            assert!(
                file.is_empty() || root.join(file).exists(),
                "{name} links to {file}, which is not there"
            );
            if file.is_empty() {
                let found = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| slug(line) == anchor);
                assert!(
                    found,
                    "{name} links to its own heading #{anchor}, which is not there"
                );
            }
        }
    }
}

/// A heading's anchor, as forges make it.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}
