//! The explanation for people.

use super::counters::Trouble;
use super::interfaces::InterfaceAnswer;
use super::packet::{End, Journey, Step};
use super::port::PortAnswer;
use super::{Answer, Problem};
use crate::net::hooks::Stander;

/// The whole text.
pub(super) fn render(answer: &Answer) -> String {
    let Answer {
        as_good_as_it_gets,
        daemon,
        heartbeat,
        problems,
        notes,
        interfaces,
        ports,
        troubles,
    } = answer;
    let mut lines = Vec::new();
    if !daemon {
        lines.push("The daemon does not answer; this is what the kernel's maps and the host say.".to_owned());
    }
    if let Some(heartbeat) = heartbeat {
        lines.push(format!("Heartbeat of the daemon in the kernel path: {heartbeat}"));
    }
    mend(&mut lines, problems, 0);
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    for interface in interfaces {
        lines.push(String::new());
        render_interface(&mut lines, interface);
    }
    for port in ports {
        lines.push(String::new());
        render_port(&mut lines, port);
    }
    if ports.is_empty() {
        lines.push("\nNo port is served: no Service has asked for one.".to_owned());
    }
    if !troubles.is_empty() {
        lines.push("\nCounted since the maps were made:".to_owned());
        troubles
            .iter()
            .for_each(|trouble| render_trouble(&mut lines, trouble));
    }
    lines.push(
        if *as_good_as_it_gets {
            "\nAs good as it gets."
        } else {
            "\nSomething is to be mended: see the lines with MEND."
        }
        .to_owned(),
    );
    lines.join("\n").trim_start_matches('\n').to_owned()
}

fn mend(lines: &mut Vec<String>, problems: &[Problem], indent: usize) {
    let pad = " ".repeat(indent);
    for Problem { what, remedy } in problems {
        lines.push(format!("{pad}MEND  {what}"));
        lines.push(format!("{pad}      -> {remedy}"));
    }
}

fn render_interface(lines: &mut Vec<String>, answer: &InterfaceAnswer) {
    let InterfaceAnswer {
        role,
        interface,
        program,
        rung,
        why,
        before,
        after,
        notes,
        problems,
    } = answer;
    let rung = rung.unwrap_or("not attached");
    lines.push(format!("{interface} ({role}): {program} {rung}, {why}"));
    lines.push(format!("  before it: {}", standers(before)));
    lines.push(format!("  after it:  {}", standers(after)));
    if !before.is_empty() {
        lines.push("  what those before it take or drop, it never sees".to_owned());
    }
    lines.extend(notes.iter().map(|note| format!("  note: {note}")));
    mend(lines, problems, 2);
}

fn standers(list: &[Stander]) -> String {
    if list.is_empty() {
        return "nobody".to_owned();
    }
    let one = |stander: &Stander| {
        let id = stander.id.map(|id| format!(" id {id}")).unwrap_or_default();
        let priority = stander
            .priority
            .map(|priority| format!(" priority {priority}"))
            .unwrap_or_default();
        format!("{} ({}{id}{priority})", stander.name, stander.hook)
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn render_port(lines: &mut Vec<String>, answer: &PortAnswer) {
    let PortAnswer {
        port,
        service,
        backend,
        path,
        why,
        packet,
        problems,
    } = answer;
    let whose = match (service, backend) {
        (Some(service), Some(backend)) => format!(" for {service} at {backend}"),
        (Some(service), None) => format!(" for {service}"),
        (None, Some(backend)) => format!(" to {backend}"),
        (None, None) => String::new(),
    };
    let path = match *path {
        "none" => "not served".to_owned(),
        path => format!("{path} path"),
    };
    lines.push(format!("{port}{whose}: {path}"));
    lines.push(format!("  why: {why}"));
    mend(lines, problems, 2);
    if let Some(journey) = packet {
        render_journey(lines, journey);
    }
}

fn render_journey(lines: &mut Vec<String>, journey: &Journey) {
    let Journey { client, steps, end } = journey;
    lines.push(format!("  a new connection from {client} meets:"));
    for Step { check, found, reason } in steps {
        let reason = reason.map(|reason| format!("  [{reason}]")).unwrap_or_default();
        lines.push(format!("    {check:<14} {found}{reason}"));
    }
    let end = match end {
        End::Kernel => "the kernel path serves it",
        End::Userspace => "the userspace path serves it",
        End::Host => "this host keeps it for itself",
        End::Nobody => "nobody serves it",
    };
    lines.push(format!("    {:<14} {end}", "in the end"));
}

fn render_trouble(lines: &mut Vec<String>, trouble: &Trouble) {
    let Trouble {
        reason,
        count,
        text,
        remedy,
    } = trouble;
    lines.push(format!("  {reason} {count}: {text}"));
    lines.push(format!("    -> {remedy}"));
}
