//! What the owner of a Service is told about it. Pure: from findings and outcomes to texts.

use exposer_common::model::ServiceRecord;
use exposer_common::proto::message::{PortOutcome, RefusalCode, ServiceOutcome};

use super::cluster::Finding;

/// How much attention a notice wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// For information.
    Normal,
    /// Something to mend.
    Warning,
}

/// One thing to tell, as an Event of the Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// Event type.
    pub weight: Weight,
    /// Event reason, in CamelCase.
    pub reason: &'static str,
    /// Event note.
    pub note: String,
}

impl Notice {
    fn warning(reason: &'static str, note: String) -> Self {
        Self {
            weight: Weight::Warning,
            reason,
            note,
        }
    }
}

/// What an edge says of a Service.
#[derive(Clone, Copy, Debug)]
pub struct EdgeWord<'a> {
    /// The edge, where there are several to tell apart.
    pub edge: Option<&'a str>,
    /// Its answer.
    pub outcome: &'a ServiceOutcome,
}

/// Everything that holds for one Service at the moment. `domain` is the cluster domain.
#[must_use]
pub fn notices(finding: &Finding, words: &[EdgeWord<'_>], domain: &str) -> Vec<Notice> {
    let mut notices: Vec<Notice> = finding
        .unknown
        .iter()
        .map(|unknown| Notice::warning("UnknownAnnotation", unknown.to_string()))
        .collect();
    match &finding.verdict {
        Err(error) => notices.push(Notice::warning(
            "InvalidAnnotation",
            format!("not exposed: {error}"),
        )),
        Ok(record) => notices.extend(words.iter().flat_map(|word| of_edge(record, *word, domain))),
    }
    notices
}

fn of_edge(record: &ServiceRecord, word: EdgeWord<'_>, domain: &str) -> Vec<Notice> {
    let EdgeWord { edge, outcome } = word;
    let at = edge.map_or_else(String::new, |edge| format!(" (edge {edge})"));
    if let Some(refusal) = &outcome.refused {
        let note = format!("not exposed{at}: {}", refusal.text);
        return vec![Notice::warning(reason(refusal.code), note)];
    }
    let mut notices: Vec<Notice> = outcome
        .ports
        .iter()
        .filter_map(|port| of_port(port, &at))
        .collect();
    if let Some(ports) = answering(outcome) {
        notices.push(Notice {
            weight: Weight::Normal,
            reason: "Exposed",
            note: format!("{}.{domain} answers on {ports}{at}", record.subdomain),
        });
    }
    notices
}

/// What is to be said of a port that is not simply as it was asked for.
fn of_port(port: &PortOutcome, at: &str) -> Option<Notice> {
    let PortOutcome {
        requested,
        protocol,
        public_port,
        path: _,
        refused,
    } = port;
    match (public_port, refused) {
        (Some(public), Some(refusal)) if public != requested => Some(Notice::warning(
            reason(refusal.code),
            format!(
                "{requested}/{protocol} answers on public port {public} instead{at}: {}",
                refusal.text
            ),
        )),
        (Some(_), Some(refusal)) => Some(Notice {
            weight: Weight::Normal,
            reason: reason(refusal.code),
            note: format!("{requested}/{protocol}{at}: {}", refusal.text),
        }),
        (None, Some(refusal)) => Some(Notice::warning(
            reason(refusal.code),
            format!("{requested}/{protocol} does not answer{at}: {}", refusal.text),
        )),
        (Some(public), None) if public != requested => Some(Notice::warning(
            reason(RefusalCode::PortMoved),
            format!("{requested}/{protocol} answers on public port {public} instead{at}"),
        )),
        (_, None) => None,
    }
}

/// The public ports that answer, or nothing if none does.
#[must_use]
pub fn answering(outcome: &ServiceOutcome) -> Option<String> {
    let ports: Vec<String> = outcome
        .ports
        .iter()
        .filter_map(|port| Some(format!("{}/{}", port.public_port?, port.protocol)))
        .collect();
    (outcome.refused.is_none() && !ports.is_empty()).then(|| ports.join(", "))
}

const fn reason(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::InvalidRecord => "InvalidRecord",
        RefusalCode::SubdomainTaken => "SubdomainTaken",
        RefusalCode::PortMoved => "PortMoved",
        RefusalCode::PortReserved => "PortReserved",
        RefusalCode::PortsExhausted => "PortsExhausted",
        RefusalCode::NoTarget => "NoTarget",
        RefusalCode::ProgramFailed => "ProgramFailed",
        RefusalCode::PathDowngraded => "PathDowngraded",
        RefusalCode::TunnelDown => "TunnelDown",
        RefusalCode::NotAllowed => "NotAllowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exposer_common::model::{Protocol, ServiceId};
    use exposer_common::proto::message::{Path, Refusal};

    fn finding() -> Finding {
        let record = ServiceRecord {
            id: ServiceId {
                namespace: "games".into(),
                name: "mc".into(),
            },
            uid: "u".into(),
            created: 0,
            subdomain: "mc".into(),
            ports: Vec::new(),
            cluster_ip: None,
            node_addresses: Vec::new(),
            target: Default::default(),
            client_ip: Default::default(),
            idle_timeout: None,
        };
        Finding {
            uid: "u".into(),
            verdict: Ok(record),
            unknown: Vec::new(),
        }
    }

    fn port(public_port: Option<u16>, code: Option<RefusalCode>) -> PortOutcome {
        PortOutcome {
            requested: 25565,
            protocol: Protocol::Tcp,
            public_port,
            path: Some(Path::Kernel),
            refused: code.map(|code| Refusal {
                code,
                text: "because".into(),
            }),
        }
    }

    fn told(refused: Option<Refusal>, ports: Vec<PortOutcome>) -> Vec<(Weight, &'static str, String)> {
        let outcome = ServiceOutcome {
            id: ServiceId {
                namespace: "games".into(),
                name: "mc".into(),
            },
            refused,
            ports,
        };
        notices(
            &finding(),
            &[EdgeWord {
                edge: None,
                outcome: &outcome,
            }],
            "neverup.at",
        )
        .into_iter()
        .map(|Notice { weight, reason, note }| (weight, reason, note))
        .collect()
    }

    #[test]
    fn a_port_as_asked_for_is_only_good_news() {
        let expected = (
            Weight::Normal,
            "Exposed",
            "mc.neverup.at answers on 25565/tcp".to_owned(),
        );
        assert_eq!(told(None, vec![port(Some(25565), None)]), [expected]);
    }

    #[test]
    fn a_moved_port_tells_the_public_one() {
        for code in [RefusalCode::PortMoved, RefusalCode::PortReserved] {
            let told = told(None, vec![port(Some(30007), Some(code))]);
            let (weight, _, note) = told.first().unwrap();
            assert_eq!(*weight, Weight::Warning);
            assert!(
                note.contains("25565/tcp answers on public port 30007") && note.contains("because"),
                "{note}"
            );
            assert!(
                told.iter()
                    .any(|(_, _, note)| note.contains("answers on 30007/tcp")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_refusal_stands_alone() {
        let refusal = Refusal {
            code: RefusalCode::SubdomainTaken,
            text: "a/b has it".into(),
        };
        let told = told(Some(refusal), Vec::new());
        assert_eq!(
            told,
            [(
                Weight::Warning,
                "SubdomainTaken",
                "not exposed: a/b has it".to_owned()
            )]
        );
    }

    #[test]
    fn a_port_that_does_not_answer_is_no_good_news() {
        let told = told(None, vec![port(None, Some(RefusalCode::PortsExhausted))]);
        assert_eq!(told.len(), 1);
        assert_eq!(
            told.first().map(|(weight, reason, _)| (*weight, *reason)),
            Some((Weight::Warning, "PortsExhausted"))
        );
    }
}
