//! From the JSON of `nft -j list ruleset` (libnftables-json(5)) to tables.

use std::collections::HashMap;

use serde_json::Value;

use super::FirewallError;
use super::model::{Base, Chain, Family, Hook, Maker, Table};

mod expression;

/// Elements of named sets and maps, by family, table and name.
type Sets<'a> = HashMap<(&'a str, &'a str, &'a str), &'a [Value]>;

/// What was understood.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub tables: Vec<Table>,
    /// Family and name of tables with rules that `nft` shows as opaque: `iptables-save` knows them.
    pub opaque: Vec<(Family, String)>,
}

pub(super) fn parse(json: &str) -> Result<Parsed, FirewallError> {
    let root: Value = serde_json::from_str(json).map_err(|error| FirewallError::Nft(error.to_string()))?;
    let objects = root
        .get("nftables")
        .and_then(Value::as_array)
        .ok_or_else(|| FirewallError::Nft("there is no list \"nftables\"".to_owned()))?;
    let mut parsed = Parsed::default();
    let sets = sets(objects);
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        add_chain(&mut parsed, chain);
    }
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        add_rule(&mut parsed, rule, &sets);
    }
    let Parsed { tables, opaque } = &mut parsed;
    tables.retain(|table| !opaque.contains(&(table.family, table.name.clone())));
    Ok(parsed)
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The family of an object; none for those that sockets of this host do not depend on (bridge, arp, netdev).
fn family(object: &Value) -> Option<Family> {
    match text(object, "family") {
        "ip" => Some(Family::Ip),
        "ip6" => Some(Family::Ip6),
        "inet" => Some(Family::Inet),
        _ => None,
    }
}

fn sets(objects: &[Value]) -> Sets<'_> {
    let named = objects
        .iter()
        .filter_map(|object| object.get("set").or_else(|| object.get("map")));
    named
        .map(|set| {
            let elements = set.get("elem").and_then(Value::as_array).map(Vec::as_slice);
            (
                (text(set, "family"), text(set, "table"), text(set, "name")),
                elements.unwrap_or_default(),
            )
        })
        .collect()
}

fn table<'a>(parsed: &'a mut Parsed, family: Family, name: &str) -> Option<&'a mut Table> {
    if !parsed
        .tables
        .iter()
        .any(|table| table.family == family && table.name == name)
    {
        parsed.tables.push(Table {
            family,
            name: name.to_owned(),
            maker: Maker::Nft,
            chains: Vec::new(),
        });
    }
    parsed
        .tables
        .iter_mut()
        .find(|table| table.family == family && table.name == name)
}

fn add_chain(parsed: &mut Parsed, chain: &Value) {
    let Some(family) = family(chain) else { return };
    let hook = match (text(chain, "type"), text(chain, "hook")) {
        // What a filter drops before routing reaches no socket either.
        ("filter", "input" | "prerouting") => Some(Hook::Input),
        ("nat", "prerouting") => Some(Hook::PreroutingNat),
        _ => None,
    };
    if let Some(table) = table(parsed, family, text(chain, "table")) {
        table.chains.push(Chain {
            name: text(chain, "name").to_owned(),
            base: hook.map(|hook| Base {
                hook,
                drops: text(chain, "policy") == "drop",
            }),
            rules: Vec::new(),
        });
    }
}

fn add_rule(parsed: &mut Parsed, rule: &Value, sets: &Sets<'_>) {
    let Some(family) = family(rule) else { return };
    let name = text(rule, "table");
    let expressions = rule
        .get("expr")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if expressions
        .iter()
        .any(|expression| expression.get("xt").is_some())
    {
        let key = (family, name.to_owned());
        if !parsed.opaque.contains(&key) {
            parsed.opaque.push(key);
        }
        return;
    }
    let find = |set: &str| sets.get(&(family.as_str(), name, set)).copied();
    let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
    let rules = expression::rules(expressions, &format!("rule with handle {handle}"), &find);
    let chain = text(rule, "chain");
    let chain = table(parsed, family, name)
        .and_then(|table| table.chains.iter_mut().find(|candidate| candidate.name == chain));
    if let Some(chain) = chain {
        chain.rules.extend(rules);
    }
}
