//! From the text of `iptables-save` to tables.

use exposer_common::model::Protocol;

use super::model::{Base, Chain, Family, Hook, Maker, Match, Rule, Sense, Table, Verdict};
use crate::config::PortRange;
use crate::net::environment::Prefix;

/// Options without a value.
const BARE: &[&str] = &[
    "--syn",
    "-f",
    "--fragment",
    "--random",
    "--rttl",
    "--rcheck",
    "--update",
    "--set",
];
/// Options whose value says nothing about the packet.
const SILENT: &[&str] = &["-m", "--match", "--comment", "--limit-burst", "--name", "--mask"];

pub(super) fn parse(family: Family, text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                family,
                name: name.to_owned(),
                maker: Maker::Iptables,
                chains: Vec::new(),
            });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            table.chains.push(Chain {
                name: name.to_owned(),
                base: hook(&table.name, name).map(|hook| Base {
                    hook,
                    drops: policy == "DROP",
                }),
                rules: Vec::new(),
            });
        } else if line.starts_with("-A ") {
            add_rule(table, line);
        }
    }
    tables
}

fn hook(table: &str, chain: &str) -> Option<Hook> {
    match (table, chain) {
        ("nat", "PREROUTING") => Some(Hook::PreroutingNat),
        ("nat", _) => None,
        (_, "INPUT" | "PREROUTING") => Some(Hook::Input),
        _ => None,
    }
}

fn add_rule(table: &mut Table, line: &str) {
    let words = words(line);
    let mut words = words.iter().map(String::as_str).skip(1).peekable();
    let Some(chain) = words.next() else { return };
    let (mut matches, mut verdict, mut sense) = (Vec::new(), Verdict::Continue, Sense::In);
    while let Some(word) = words.next() {
        match word {
            "!" => {
                sense = Sense::NotIn;
                continue;
            }
            "-j" | "-g" => {
                verdict = target(word, words.next().unwrap_or_default());
                // What follows belongs to the target.
                break;
            }
            bare if BARE.contains(&bare) => matches.push(holds((bare == "--syn") == (sense == Sense::In))),
            option => {
                let value = words.next().unwrap_or_default();
                // --tcp-flags MASK COMPARED, and other options with several values.
                let more: Vec<&str> =
                    std::iter::from_fn(|| words.next_if(|word| !word.starts_with('-') && *word != "!"))
                        .collect();
                matches.extend(condition(option, value, &more, sense));
            }
        }
        sense = Sense::In;
    }
    let known = |name: &str| table.chains.iter().any(|chain| chain.name == name);
    if let Verdict::Jump(name) | Verdict::Goto(name) = &verdict
        && !known(name)
    {
        // LOG, MARK and whatever else goes on with the next rule.
        verdict = Verdict::Continue;
    }
    let rule = Rule {
        matches,
        verdict,
        text: line.to_owned(),
    };
    if let Some(chain) = table.chains.iter_mut().find(|candidate| candidate.name == chain) {
        chain.rules.push(rule);
    }
}

fn target(option: &str, name: &str) -> Verdict {
    match name {
        "ACCEPT" | "NFQUEUE" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "DNAT" | "REDIRECT" | "TPROXY" => Verdict::Translate,
        chain if option == "-g" => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    }
}

const fn holds(always: bool) -> Match {
    if always { Match::Always } else { Match::Never }
}

fn condition(option: &str, value: &str, more: &[&str], sense: Sense) -> Option<Match> {
    let any = |wanted: &[&str]| value.split(',').any(|word| wanted.contains(&word));
    let fulfilled = |inside: bool| Some(holds(inside == (sense == Sense::In)));
    match option {
        "-p" | "--protocol" if value == "all" => None,
        "-p" | "--protocol" => {
            let one = Protocol::ALL
                .into_iter()
                .find(|protocol| protocol.as_str() == value);
            Some(Match::Protocol(one.into_iter().collect(), sense))
        }
        "-i" | "--in-interface" => Some(Match::Interface(vec![value.to_owned()], sense)),
        "-d" | "--destination" => Some(Match::Destination(prefix(value).into_iter().collect(), sense)),
        "--dport" | "--dports" | "--destination-port" | "--destination-ports" => {
            Some(Match::Port(value.split(',').filter_map(ports).collect(), sense))
        }
        "--ctstate" | "--state" => fulfilled(any(&["NEW"])),
        "--ctdir" => fulfilled(any(&["ORIGINAL"])),
        "--dst-type" => fulfilled(any(&["LOCAL"])),
        "--pkt-type" => fulfilled(any(&["unicast"])),
        "--tcp-flags" => fulfilled(more.first().is_some_and(|flags| *flags == "SYN")),
        "--limit" => Some(Match::Always),
        option if SILENT.contains(&option) => None,
        // A source, a mark, a rate: not the same for every sender.
        _ => fulfilled(false),
    }
}

/// `80` or `8000:8010`.
fn ports(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    PortRange::new(first.parse::<u16>().ok()?.max(1), last.parse().ok()?).ok()
}

fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: std::net::IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = if length.is_empty() {
        whole
    } else {
        length.parse().ok()?
    };
    Some(Prefix { address, length })
}

/// Words, with "quoted ones" kept whole.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
