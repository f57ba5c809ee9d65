//! Tokens that change while agents are connected: whoever they concern has to prove itself anew, and what is not
//! allowed any more is closed at once.

use std::time::Instant;

use exposer_common::proto::message::{ErrorCode, ErrorMessage};
use tracing::warn;

use super::super::tokens::{Access, Tokens};
use super::Core;

impl Core {
    /// Replaces all tokens. An agent whose token or limits changed is told so and connects anew; the Services of one
    /// whose own token was revoked are closed, and its ports remembered.
    pub fn handle_tokens(&mut self, tokens: Tokens, now: Instant) {
        let former = std::mem::replace(&mut self.shared.tokens, tokens);
        let limits = self.shared.tokens.limits();
        let changes = self.registry.set_limits(limits);
        self.carry_out(changes);
        let concerned: Vec<(String, Access)> = self
            .agents
            .keys()
            .map(|name| (name.clone(), former.change(&self.shared.tokens, name)))
            .filter(|(_, access)| *access != Access::Same)
            .collect();
        for (name, access) in concerned {
            self.end_access(&name, access, now);
        }
        self.tell_news(now);
    }

    fn end_access(&mut self, name: &str, access: Access, now: Instant) {
        let (action, text) = match access {
            Access::Same => return,
            Access::Limits => (
                "limited",
                "what this agent's token allows has changed; connect again",
            ),
            Access::Token => (
                "token-changed",
                "this agent has another token (exposer-edge token); give the agent that one",
            ),
            Access::Revoked => (
                "revoked",
                "this agent's token was revoked (exposer-edge token revoke); its Services are closed",
            ),
        };
        let conn = self.agents.get(name).and_then(|agent| agent.presence.conn());
        if let Some(conn) = conn {
            if let Some(connection) = self.sessions.get_mut(&conn) {
                let error = ErrorMessage::new(ErrorCode::AccessChanged, text);
                connection.session.fail(error);
            }
            self.drive(conn, now);
        }
        if access == Access::Revoked {
            self.agents.remove(name);
            let changes = self.registry.expire_agent(name);
            self.want_save();
            self.carry_out(changes);
        }
        warn!(component = "control", agent = name, action, "{text}");
    }
}
