//! Which token an agent has to prove.

use std::collections::BTreeMap;

use exposer_common::proto::auth::Token;

/// Tokens by agent name, and one for every agent without its own.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    shared: Option<Token>,
    by_agent: BTreeMap<String, Token>,
}

impl Tokens {
    /// One token for every agent.
    #[must_use]
    pub const fn shared(token: Token) -> Self {
        Self {
            shared: Some(token),
            by_agent: BTreeMap::new(),
        }
    }

    /// Gives `agent` a token of its own: the shared one does not open its name any more.
    pub fn insert(&mut self, agent: String, token: Token) {
        self.by_agent.insert(agent, token);
    }

    /// The token that `agent` has to prove; none where nobody may use that name.
    #[must_use]
    pub fn of(&self, agent: &str) -> Option<&Token> {
        self.by_agent.get(agent).or(self.shared.as_ref())
    }
}
