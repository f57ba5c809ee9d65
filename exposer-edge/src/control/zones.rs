//! Zone numbers: each interface has a small stable number that keys and entries of the BPF maps carry.

use std::collections::BTreeMap;

use exposer_common::link::LINK_SLOTS;

/// Zone numbers by interface name, from 1; 0 is never used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(BTreeMap<String, u8>);

impl Zones {
    /// Takes over saved numbers, but none that is out of range or given twice.
    #[must_use]
    pub fn restore(saved: &BTreeMap<String, u8>) -> Self {
        let mut zones = Self::default();
        for (name, zone) in saved {
            if is_zone(*zone) && !zones.0.values().any(|used| used == zone) {
                zones.0.insert(name.clone(), *zone);
            }
        }
        zones
    }

    /// The number of `interface`, given for ever; none when all are in use.
    pub fn zone(&mut self, interface: &str) -> Option<u8> {
        if let Some(zone) = self.0.get(interface) {
            return Some(*zone);
        }
        let zone = (1..=u8::MAX)
            .take_while(|zone| is_zone(*zone))
            .find(|zone| !self.0.values().any(|used| used == zone))?;
        self.0.insert(interface.to_owned(), zone);
        Some(zone)
    }

    /// For the state file.
    #[must_use]
    pub const fn saved(&self) -> &BTreeMap<String, u8> {
        &self.0
    }
}

fn is_zone(zone: u8) -> bool {
    zone != 0 && u32::from(zone) < LINK_SLOTS
}
