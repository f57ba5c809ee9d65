//! How a program is attached to an interface, why not by a higher rung, and who stands before and after it. A function
//! of values.

use serde::Serialize;

use super::Problem;
use crate::net::hooks::{Hook, Stander};

/// What is known of one interface.
#[derive(Clone, Debug, Default)]
pub(super) struct InterfaceFacts {
    /// `public` or `tunnel`.
    pub role: &'static str,
    pub interface: String,
    /// The program that belongs there.
    pub program: &'static str,
    /// Whether the interface is there.
    pub exists: bool,
    /// Whether the program ought to be there: the kernel path is open, or its pins are.
    pub expected: bool,
    pub hook: Hook,
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct InterfaceAnswer {
    pub role: &'static str,
    pub interface: String,
    pub program: &'static str,
    /// `tcx`, `clsact`, or none.
    pub rung: Option<&'static str>,
    /// Why it is not a higher one.
    pub why: String,
    /// Who sees packets before it.
    pub before: Vec<Stander>,
    /// Who sees packets that it passes.
    pub after: Vec<Stander>,
    pub notes: Vec<String>,
    pub problems: Vec<Problem>,
}

/// Judges one interface.
pub(super) fn judge(facts: &InterfaceFacts) -> InterfaceAnswer {
    let InterfaceFacts {
        role,
        interface,
        program,
        exists,
        expected,
        hook,
    } = facts;
    let place = hook
        .order
        .iter()
        .position(|stander| stander.ours && stander.name == *program);
    let (before, after) = split(&hook.order, place);
    let rung = place
        .and_then(|place| hook.order.get(place))
        .map(|stander| stander.hook);
    let mut problems = Vec::new();
    let why = match (rung, hook.has_tcx) {
        (Some("tcx"), _) => "the highest rung there is".to_owned(),
        (Some(_), Some(true)) => {
            problems.push(Problem::new(
                format!("{program} stands at {interface} by clsact, though this kernel has TCX"),
                "systemctl restart exposer-edge",
            ));
            "left by an earlier run: this kernel has TCX".to_owned()
        }
        (Some(_), _) => "this kernel has no TCX (Linux 6.6 and later have)".to_owned(),
        (None, _) if !*exists => format!("{interface} is not there"),
        (None, _) if !*expected => "the kernel path is not open".to_owned(),
        (None, _) if !hook.notes.is_empty() => "the kernel could not be asked".to_owned(),
        (None, _) => {
            problems.push(Problem::new(
                format!("{program} is not attached to {interface}: every packet takes the userspace path"),
                "systemctl restart exposer-edge; if it does not help: journalctl -u exposer-edge",
            ));
            "it is not attached".to_owned()
        }
    };
    if !*exists && *expected {
        problems.push(gone(role, interface));
    }
    InterfaceAnswer {
        role,
        interface: interface.clone(),
        program,
        rung,
        why,
        before,
        after,
        notes: hook.notes.clone(),
        problems,
    }
}

fn gone(role: &str, interface: &str) -> Problem {
    let what = format!("the {role} interface {interface} is not there, or not up");
    if role == "tunnel" {
        return Problem::new(what, format!("systemctl start wg-quick@{interface}"));
    }
    Problem::new(
        what,
        format!("ip link set {interface} up, or name another one: EXPOSER_PUBLIC_INTERFACE"),
    )
}

fn split(order: &[Stander], place: Option<usize>) -> (Vec<Stander>, Vec<Stander>) {
    let Some(place) = place else {
        return (order.to_vec(), Vec::new());
    };
    let before = order.iter().take(place).cloned().collect();
    let after = order.iter().skip(place.saturating_add(1)).cloned().collect();
    (before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stander(name: &str, hook: &'static str, ours: bool) -> Stander {
        Stander {
            name: name.to_owned(),
            id: Some(1),
            hook,
            priority: None,
            ours,
        }
    }

    fn facts(order: Vec<Stander>, has_tcx: Option<bool>) -> InterfaceFacts {
        InterfaceFacts {
            role: "tunnel",
            interface: "wg0".to_owned(),
            program: "tunnel_ingress",
            exists: true,
            expected: true,
            hook: Hook {
                order,
                has_tcx,
                notes: Vec::new(),
            },
        }
    }

    #[test]
    fn who_stands_before_and_after() {
        let order = vec![
            stander("guard", "tcx", false),
            stander("tunnel_ingress", "tcx", true),
            stander("meter", "tcx", false),
            stander("matchall", "clsact", false),
        ];
        let answer = judge(&facts(order, Some(true)));
        let names =
            |list: &[Stander]| -> Vec<String> { list.iter().map(|stander| stander.name.clone()).collect() };
        assert_eq!(names(&answer.before), ["guard"]);
        assert_eq!(names(&answer.after), ["meter", "matchall"]);
        assert_eq!((answer.rung, answer.problems.len()), (Some("tcx"), 0));
    }

    #[test]
    fn rungs_and_what_is_wrong_with_them() {
        let clsact = || vec![stander("tunnel_ingress", "clsact", true)];
        let old = judge(&facts(clsact(), Some(false)));
        assert!(
            old.why.contains("no TCX") && old.problems.is_empty(),
            "as good as it gets there: {old:?}"
        );
        assert_eq!(judge(&facts(clsact(), Some(true))).problems.len(), 1);
        let missing = judge(&facts(Vec::new(), Some(true)));
        assert!(missing.problems[0].what.contains("not attached"), "{missing:?}");
        let idle = judge(&InterfaceFacts {
            expected: false,
            ..facts(Vec::new(), Some(true))
        });
        assert_eq!((idle.rung, idle.problems), (None, Vec::new()));
        let gone = judge(&InterfaceFacts {
            exists: false,
            ..facts(Vec::new(), None)
        });
        assert_eq!(gone.problems.len(), 1);
        assert_eq!(gone.problems[0].remedy, "systemctl start wg-quick@wg0");
    }
}
