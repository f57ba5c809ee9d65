//! From a change to the datapath and to the agents: steps out, acknowledgements back.

use std::collections::BTreeMap;
use std::time::Instant;

use exposer_common::model::ServiceId;
use exposer_common::proto::message::{EdgeMessage, ErrorCode, ErrorMessage, Refusal, ServiceOutcome};
use exposer_common::proto::parts::ack_parts;
use tracing::{info, warn};

use super::super::claim::Changes;
use super::super::outcome;
use super::super::plan::{Plan, PlanStep};
use super::super::programming::{Failure, State};
use super::{Command, Core};
use crate::datapath::{Binding, BindingKey, Removal, ServiceRef};

impl Core {
    /// Tells the datapath what changed.
    pub(in super::super) fn carry_out(&mut self, changes: Changes) {
        let Changes { services, keys } = changes;
        if !keys.is_empty() {
            self.want_save();
        }
        for step in Plan::for_keys(&self.registry, &self.programming, &keys).steps {
            match step {
                PlanStep::Remove(key) => {
                    if let Some(service) = self.programming.get(key).map(|slot| slot.service.clone()) {
                        self.issue(key, None, &service);
                    }
                }
                PlanStep::Upsert(binding) => {
                    let service = binding.service.clone();
                    self.issue(binding.key, Some(binding), &service);
                }
            }
        }
        for service in services {
            self.touch(&service);
        }
    }

    pub(super) fn issue(&mut self, key: BindingKey, told: Option<Binding>, service: &ServiceRef) {
        let step = self.programming.begin(key, told.clone(), service);
        let removal = Removal {
            drain: self.settings.drain,
        };
        self.commands.push_back(match told {
            Some(binding) => Command::Upsert {
                step,
                binding,
                removal,
            },
            None => Command::Remove { step, key, removal },
        });
    }

    pub(super) fn touch(&mut self, service: &ServiceRef) {
        if let Some(agent) = self.agents.get_mut(&service.agent) {
            agent.touch(service.id.clone());
            self.news.insert(service.agent.clone());
        }
    }

    /// Acknowledges to every agent whose steps are all done.
    pub(super) fn tell_news(&mut self, now: Instant) {
        let ready: Vec<String> = self
            .news
            .iter()
            .filter(|name| !self.programming.is_running(name))
            .cloned()
            .collect();
        for name in ready {
            self.news.remove(&name);
            self.tell(&name, now);
        }
    }

    fn tell(&mut self, name: &str, now: Instant) {
        let Some(mut agent) = self.agents.remove(name) else {
            return;
        };
        let news = if agent.has_news() {
            let invalid = std::mem::take(&mut agent.invalid);
            let news = agent.take_news(|id| self.outcome(name, id, &invalid));
            agent.invalid = invalid;
            news
        } else {
            None
        };
        let (conn, position) = (agent.presence.conn(), agent.position);
        self.agents.insert(name.to_owned(), agent);
        let (Some(news), Some(conn), Some((epoch, revision))) = (news, conn, position) else {
            return;
        };
        let Some(connection) = self.sessions.get_mut(&conn) else {
            return;
        };
        match ack_parts(epoch, revision, news) {
            Ok(parts) => {
                for part in parts {
                    connection.session.send(&EdgeMessage::Ack(part));
                }
            }
            Err(error) => connection
                .session
                .fail(ErrorMessage::new(ErrorCode::Limit, &error.to_string())),
        }
        self.drive(conn, now);
    }

    fn outcome(
        &self,
        agent: &str,
        id: &ServiceId,
        invalid: &BTreeMap<ServiceId, Refusal>,
    ) -> Option<ServiceOutcome> {
        if let Some(refusal) = invalid.get(id) {
            return Some(ServiceOutcome {
                id: id.clone(),
                refused: Some(refusal.clone()),
                ports: Vec::new(),
            });
        }
        let service = ServiceRef {
            agent: agent.to_owned(),
            id: id.clone(),
        };
        let entry = self.registry.get(&service)?;
        Some(outcome::of(&service, entry, &self.programming, self.tunnel_up))
    }

    pub(super) fn log_result(
        &self,
        key: BindingKey,
        service: &ServiceRef,
        told: Option<&Binding>,
        failure: Option<&Failure>,
    ) {
        let subdomain = self
            .registry
            .get(service)
            .map_or("", |entry| entry.record.subdomain.as_str());
        let target = told.map(|binding| binding.backend.to_string());
        let (port, protocol) = (key.port, key.protocol);
        match (failure, told) {
            (Some(failure), _) => warn!(
                component = "control", %service, subdomain, port, %protocol, action = "failed", target,
                error = failure.text, "port could not be programmed; it is tried again"
            ),
            (None, Some(_)) => {
                let path = match self.programming.get(key).map(|slot| &slot.state) {
                    Some(State::Served(served)) => Some(served.path),
                    _ => None,
                };
                info!(
                    component = "control", %service, subdomain, port, %protocol, action = "open", target, ?path,
                    "port is served"
                );
            }
            (None, None) => info!(
                component = "control", %service, subdomain, port, %protocol, action = "close", "port is closed"
            ),
        }
    }
}
