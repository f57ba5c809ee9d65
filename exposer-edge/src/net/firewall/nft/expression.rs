//! The expressions of one nft rule: what must hold, and what happens then.
//!
//! What is not understood counts as a condition that does not hold for everybody, unless it is negated: `ip saddr
//! 192.0.2.1 drop` is in nobody's way, `ip saddr != 192.0.2.1 drop` in nearly everybody's.

use std::net::IpAddr;

use exposer_common::model::Protocol;
use serde_json::Value;

use crate::config::PortRange;
use crate::net::environment::Prefix;
use crate::net::firewall::model::{Match, Rule, Sense, Verdict};

/// Looks up the elements of a named set or map.
type Find<'a, 'f> = &'f dyn Fn(&str) -> Option<&'a [Value]>;

/// One rule for a plain one; one for each element of a verdict map.
pub(super) fn rules<'a>(expressions: &'a [Value], text: &str, find: Find<'a, '_>) -> Vec<Rule> {
    let mut matches = Vec::new();
    let rule = |matches: &[Match], verdict| Rule {
        matches: matches.to_vec(),
        verdict,
        text: text.to_owned(),
    };
    for expression in expressions {
        if let Some(given) = expression.get("match") {
            matches.extend(condition(given, find));
        } else if let Some(limit) = expression.get("limit").or_else(|| expression.get("ct count")) {
            // Up to the limit the first packet of a connection passes; beyond it, it is not the usual case.
            let over = limit.get("inv").and_then(Value::as_bool).unwrap_or(false);
            matches.push(if over { Match::Never } else { Match::Always });
        } else if let Some(map) = expression.get("vmap") {
            return by_map(map, &matches, &rule, find);
        } else if let Some(verdict) = verdict(expression) {
            matches.extend(translated_ports(expression, find));
            return vec![rule(&matches, verdict)];
        }
    }
    vec![rule(&matches, Verdict::Continue)]
}

fn by_map<'a>(
    map: &'a Value,
    matches: &[Match],
    rule: &dyn Fn(&[Match], Verdict) -> Rule,
    find: Find<'a, '_>,
) -> Vec<Rule> {
    let (Some(key), Some(data)) = (map.get("key"), map.get("data")) else {
        return Vec::new();
    };
    let mut rules = Vec::new();
    for pair in values(data, find) {
        let (Some(value), Some(result)) = (pair.get(0), pair.get(1)) else {
            continue;
        };
        let Some(verdict) = verdict(result) else { continue };
        let mut all = matches.to_vec();
        all.extend(compare(key, Sense::In, &values(value, find)));
        rules.push(rule(&all, verdict));
    }
    rules
}

fn verdict(expression: &Value) -> Option<Verdict> {
    let (name, value) = expression.as_object()?.iter().next()?;
    let target = || {
        value
            .get("target")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    match name.as_str() {
        // A program behind a queue decides; most let pass what they do not know.
        "accept" | "queue" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "return" => Some(Verdict::Return),
        "jump" => Some(Verdict::Jump(target())),
        "goto" => Some(Verdict::Goto(target())),
        "dnat" | "redirect" | "tproxy" => Some(Verdict::Translate),
        _ => None,
    }
}

/// The ports of `dnat to tcp dport map { 80 : …, 443 : … }`: its keys.
fn translated_ports<'a>(expression: &'a Value, find: Find<'a, '_>) -> Vec<Match> {
    let map = expression.get("dnat").and_then(|dnat| {
        dnat.get("addr")
            .and_then(|addr| addr.get("map"))
            .or_else(|| dnat.get("port")?.get("map"))
    });
    let Some((key, data)) = map.and_then(|map| Some((map.get("key")?, map.get("data")?))) else {
        return Vec::new();
    };
    let keys: Vec<&Value> = values(data, find)
        .into_iter()
        .filter_map(|pair| pair.get(0))
        .collect();
    compare(key, Sense::In, &keys)
}

fn condition<'a>(given: &'a Value, find: Find<'a, '_>) -> Vec<Match> {
    let (Some(left), Some(right)) = (given.get("left"), given.get("right")) else {
        return vec![Match::Never];
    };
    let sense = match given.get("op").and_then(Value::as_str) {
        Some("==" | "in") => Sense::In,
        Some("!=") => Sense::NotIn,
        _ => return vec![Match::Never],
    };
    match right.as_str().and_then(|name| name.strip_prefix('@')) {
        Some(name) if find(name).is_none() => vec![unknown(sense)],
        _ => compare(left, sense, &values(right, find)),
    }
}

/// The values of a right-hand side, sets resolved, elements without their timeouts and counters.
fn values<'a>(right: &'a Value, find: Find<'a, '_>) -> Vec<&'a Value> {
    let elements = match (
        right.as_str().and_then(|name| name.strip_prefix('@')),
        right.get("set"),
    ) {
        (Some(name), _) => find(name).unwrap_or_default(),
        (None, Some(Value::Array(elements))) => elements,
        _ => std::slice::from_ref(right),
    };
    let bare = |element: &'a Value| {
        element
            .get("elem")
            .and_then(|inner| inner.get("val"))
            .unwrap_or(element)
    };
    elements.iter().map(bare).collect()
}

/// A condition of which nothing more is known.
const fn unknown(sense: Sense) -> Match {
    holds(matches!(sense, Sense::NotIn))
}

const fn holds(always: bool) -> Match {
    if always { Match::Always } else { Match::Never }
}

/// A condition that the packet fulfils if one of `values` is among `wanted`.
fn any_of(values: &[&Value], wanted: &[&str], sense: Sense) -> Match {
    let inside = values
        .iter()
        .any(|value| value.as_str().is_some_and(|text| wanted.contains(&text)));
    holds(inside == matches!(sense, Sense::In))
}

fn compare(left: &Value, sense: Sense, values: &[&Value]) -> Vec<Match> {
    if let Some(payload) = left.get("payload") {
        let field = |key| payload.get(key).and_then(Value::as_str).unwrap_or_default();
        return compare_payload(field("protocol"), field("field"), sense, values);
    }
    if let Some(parts) = left.get("&").and_then(Value::as_array) {
        // `tcp flags & (fin | syn | rst | ack) == syn`: the first packet of a connection.
        let flags = parts
            .first()
            .and_then(|part| part.get("payload")?.get("field")?.as_str());
        return vec![if flags == Some("flags") {
            any_of(values, &["syn"], sense)
        } else {
            unknown(sense)
        }];
    }
    let key = |name: &str| {
        left.get(name)
            .and_then(|inner| inner.get("key"))
            .and_then(Value::as_str)
    };
    if let Some(key) = key("ct") {
        return vec![match key {
            "state" => any_of(values, &["new"], sense),
            "direction" => any_of(values, &["original"], sense),
            _ => unknown(sense),
        }];
    }
    if let Some(fib) = left.get("fib") {
        let of_destination = fib.get("result").and_then(Value::as_str) == Some("type")
            && fib.get("flags").is_some_and(|flags| {
                flags.as_str() == Some("daddr")
                    || flags
                        .as_array()
                        .is_some_and(|flags| flags.iter().any(|flag| flag.as_str() == Some("daddr")))
            });
        return vec![if of_destination {
            any_of(values, &["local"], sense)
        } else {
            unknown(sense)
        }];
    }
    vec![key("meta").map_or_else(|| unknown(sense), |key| compare_meta(key, sense, values))]
}

fn compare_meta(key: &str, sense: Sense, values: &[&Value]) -> Match {
    match key {
        "iifname" | "iif" => {
            let names = values
                .iter()
                .filter_map(|value| value.as_str())
                .map(ToOwned::to_owned);
            Match::Interface(names.collect(), sense)
        }
        "l4proto" => protocol_match(values, sense),
        "nfproto" => {
            let prefix = |value: &&Value| match value.as_str() {
                Some("ipv4") => parse_prefix("0.0.0.0", 0),
                Some("ipv6") => parse_prefix("::", 0),
                _ => None,
            };
            Match::Destination(values.iter().filter_map(prefix).collect(), sense)
        }
        "pkttype" => any_of(values, &["host", "unicast"], sense),
        _ => unknown(sense),
    }
}

fn compare_payload(protocol: &str, field: &str, sense: Sense, values: &[&Value]) -> Vec<Match> {
    match (protocol, field) {
        ("tcp" | "udp" | "th", "dport") => {
            let ports = Match::Port(values.iter().filter_map(|value| ports(value)).collect(), sense);
            only(protocol).into_iter().chain([ports]).collect()
        }
        ("tcp", "flags") => vec![
            Match::Protocol(vec![Protocol::Tcp], Sense::In),
            any_of(values, &["syn"], sense),
        ],
        ("ip" | "ip6", "daddr") => {
            vec![Match::Destination(
                values.iter().filter_map(|value| prefix(value)).collect(),
                sense,
            )]
        }
        ("ip", "protocol") | ("ip6", "nexthdr") => vec![protocol_match(values, sense)],
        // Sources, and what else is in the packet: not the same for every sender.
        ("tcp" | "udp" | "ip" | "ip6" | "th" | "ether", _) => {
            only(protocol).into_iter().chain([unknown(sense)]).collect()
        }
        // Fields of another transport protocol (icmp, sctp …) imply that protocol, whatever is asked of them.
        _ => vec![Match::Never],
    }
}

/// A field of TCP or UDP implies that the packet is one.
fn only(protocol: &str) -> Option<Match> {
    let protocol = parse_protocol(protocol)?;
    Some(Match::Protocol(vec![protocol], Sense::In))
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.as_str() == text)
}

fn protocol_match(values: &[&Value], sense: Sense) -> Match {
    let one = |value: &&Value| match (value.as_str(), value.as_u64()) {
        (Some(text), _) => parse_protocol(text),
        (None, Some(6)) => Some(Protocol::Tcp),
        (None, Some(17)) => Some(Protocol::Udp),
        _ => None,
    };
    Match::Protocol(values.iter().filter_map(one).collect(), sense)
}

fn ports(value: &Value) -> Option<PortRange> {
    let port = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    if let Some(range) = value.get("range") {
        // A range from 0 is one from 1: nobody sends to port 0.
        return PortRange::new(port(range.get(0)?)?.max(1), port(range.get(1)?)?).ok();
    }
    PortRange::new(port(value)?, port(value)?).ok()
}

fn parse_prefix(address: &str, length: u64) -> Option<Prefix> {
    Some(Prefix {
        address: address.parse().ok()?,
        length: u8::try_from(length).ok()?,
    })
}

fn prefix(value: &Value) -> Option<Prefix> {
    if let Some(prefix) = value.get("prefix") {
        return parse_prefix(prefix.get("addr")?.as_str()?, prefix.get("len")?.as_u64()?);
    }
    let address: IpAddr = value.as_str()?.parse().ok()?;
    Some(Prefix {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    })
}
