//! From the core to the state file and back.

use std::time::{Duration, Instant};

use super::agents::{Agent, Presence};
use super::claim::SavedService;
use super::core::Core;
use super::state_file::{Remembered, SavedAgent, SavedState, VERSION};
use super::zones::Zones;

impl Core {
    /// Everything that a restart must not lose. The next change asks for a save again.
    pub fn saved_state(&mut self, now: Instant) -> SavedState {
        self.save_begins();
        let agents = self
            .agents
            .iter()
            .map(|(name, agent)| {
                let saved = SavedAgent {
                    stale_seconds: agent.presence.away_for(now).map_or(0, |away| away.as_secs()),
                    services: self.registry.save(name),
                };
                (name.clone(), saved)
            })
            .filter(|(_, saved)| !saved.services.is_empty())
            .collect();
        SavedState {
            version: VERSION,
            generation: self.registry.last_generation(),
            zones: self.zones.saved().clone(),
            agents,
            remembered: self.registry.remembered(),
        }
    }

    /// Takes over what was saved, before anything else happens: all agents are away, their Services are served.
    pub fn restore(&mut self, state: SavedState, now: Instant) {
        let SavedState {
            version: _,
            generation,
            zones,
            agents,
            remembered,
        } = state;
        self.zones = Zones::restore(&zones);
        self.registry.go_on_from(generation);
        let mut services: Vec<(String, SavedService)> = Vec::new();
        for (
            name,
            SavedAgent {
                stale_seconds,
                services: saved,
            },
        ) in agents
        {
            if !exposer_common::model::is_dns_label(&name) || !self.shared.tokens.knows(&name) {
                tracing::warn!(
                    component = "control",
                    agent = name,
                    "no token opens this agent's name: its saved Services are not served"
                );
                continue;
            }
            let presence = Presence::Away {
                since: now,
                before: Duration::from_secs(stale_seconds),
            };
            self.agents
                .insert(name.clone(), Agent::new(presence, String::new()));
            services.extend(saved.into_iter().map(|service| (name.clone(), service)));
        }
        for Remembered {
            service,
            wish,
            public_port,
        } in remembered
        {
            self.registry.remember_port(service, wish, public_port);
        }
        let changes = self.registry.restore(services);
        self.carry_out(changes);
    }
}
