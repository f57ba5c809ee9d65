//! Which token an agent has to prove, and what its holder may publish.

use std::collections::BTreeMap;

use exposer_common::proto::auth::Token;

use super::limits::Limits;

/// Tokens by agent name, and one for every agent without its own.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    shared: Option<Token>,
    by_agent: BTreeMap<String, Own>,
}

/// What belongs to one agent's name alone.
#[derive(Clone, Debug)]
struct Own {
    /// None: nobody may use the name.
    token: Option<Token>,
    limits: Limits,
}

/// What other tokens mean for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Same,
    /// The token is the same, what it allows is not.
    Limits,
    /// It has to prove another token.
    Token,
    /// Its own token was revoked.
    Revoked,
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

    /// The shared token alone.
    #[must_use]
    pub fn shared_only(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            by_agent: BTreeMap::new(),
        }
    }

    /// Gives `agent` a token of its own: the shared one does not open its name any more.
    pub fn insert(&mut self, agent: String, token: Token, limits: Limits) {
        let token = Some(token);
        self.by_agent.insert(agent, Own { token, limits });
    }

    /// Takes over what `former` says of `agent`, whose own token can't be read; where it says nothing, nobody may use
    /// that name, not even with the shared token.
    pub fn keep(&mut self, agent: String, former: &Self) {
        let own = former.by_agent.get(&agent).cloned().unwrap_or(Own {
            token: None,
            limits: Limits::default(),
        });
        self.by_agent.insert(agent, own);
    }

    /// The token that `agent` has to prove; none where nobody may use that name.
    #[must_use]
    pub fn of(&self, agent: &str) -> Option<&Token> {
        match self.by_agent.get(agent) {
            Some(own) => own.token.as_ref(),
            None => self.shared.as_ref(),
        }
    }

    /// Whether `agent` has a token of its own, or the shared one is its.
    #[must_use]
    pub fn knows(&self, agent: &str) -> bool {
        self.by_agent.contains_key(agent) || self.shared.is_some()
    }

    /// The limits of every agent that has a token of its own.
    #[must_use]
    pub fn limits(&self) -> BTreeMap<String, Limits> {
        self.by_agent
            .iter()
            .map(|(agent, own)| (agent.clone(), own.limits.clone()))
            .collect()
    }

    /// What it means for `agent` that `newer` replaces these.
    #[must_use]
    pub fn change(&self, newer: &Self, agent: &str) -> Access {
        let (before, after) = (self.by_agent.get(agent), newer.by_agent.get(agent));
        let same_token = match (self.of(agent), newer.of(agent)) {
            (Some(before), Some(after)) => before.is_same(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if before.is_some() && after.is_none() {
            Access::Revoked
        } else if !same_token {
            Access::Token
        } else if before.map(|own| &own.limits) != after.map(|own| &own.limits) {
            Access::Limits
        } else {
            Access::Same
        }
    }
}
