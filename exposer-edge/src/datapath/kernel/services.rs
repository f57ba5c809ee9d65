//! Bindings in the maps `PORTS` and `SERVICES`, and what becomes of their flows when a binding goes or changes.
//!
//! The removal rule (DESIGN §5): the port closes to new flows at once, because its `SERVICES` entries go. UDP flows
//! end at once. TCP flows go on until the drain is over; for so long the port's cell in `PORTS` keeps sending packets
//! through the flow table. A changed target is the same rule for flows of the older generation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use exposer_common::model::{ClientIp, Protocol};
use exposer_common::service::{PortMode, ServiceEntry};

use super::KernelSettings;
use super::cells::{delete, get, managed_ports, service_key, set_port};
use super::error::bpf;
use super::maps::ConfigMaps;
use super::sweep::{Cut, IdleTimeouts, Sweeper};
use crate::config::PortRange;
use crate::datapath::{Binding, BindingKey, DatapathError, Removal};
use crate::net::environment::Environment;

/// How long entries of an earlier run wait for somebody to claim them. The state file restores its Services within
/// moments of the start; what is unclaimed after this is nobody's.
const CLAIM_WITHIN: Duration = Duration::from_secs(15);

/// TCP flows that may go on for a while.
#[derive(Clone, Copy, Debug)]
struct Drain {
    key: BindingKey,
    until: Instant,
    /// Ended when the time is over; none where nobody knows any more whose flows they are.
    cut: Option<Cut>,
}

/// The bindings that the kernel path serves.
#[derive(Debug)]
pub struct Services {
    bindings: BTreeMap<BindingKey, Binding>,
    drains: Vec<Drain>,
    timeouts: IdleTimeouts,
    /// Entries of an earlier run that no binding has claimed yet, and until when they may.
    unclaimed: Option<(Instant, BTreeSet<(Ipv4Addr, BindingKey)>)>,
    public_addresses: BTreeSet<Ipv4Addr>,
    snat_address: Option<Ipv4Addr>,
    snat_range: PortRange,
    tunnel_zone: u8,
}

impl Services {
    /// Takes over what an earlier run has left in the maps.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn adopt(
        maps: &ConfigMaps,
        settings: &KernelSettings,
        timeouts: IdleTimeouts,
    ) -> Result<Self, DatapathError> {
        let mut found = BTreeSet::new();
        for key in maps.services.keys() {
            let key = key.map_err(bpf("reading the map SERVICES"))?;
            found.insert((
                Ipv4Addr::from(key.address),
                BindingKey {
                    port: key.port,
                    protocol: key.proto.into(),
                },
            ));
        }
        if !found.is_empty() {
            tracing::info!(
                component = "kernel",
                action = "adopt",
                services = found.len(),
                "adopted pinned maps"
            );
        }
        // Addresses that were served count as served until the environment says otherwise.
        let public_addresses = found.iter().map(|(address, _)| *address).collect();
        Ok(Self {
            bindings: BTreeMap::new(),
            drains: Vec::new(),
            timeouts,
            unclaimed: Instant::now()
                .checked_add(CLAIM_WITHIN)
                .map(|until| (until, found)),
            public_addresses,
            snat_address: None,
            snat_range: settings.snat_range,
            tunnel_zone: settings.tunnel_zone,
        })
    }

    /// The index of a binding that is served.
    #[must_use]
    pub fn index(&self, key: BindingKey) -> Option<u32> {
        self.bindings.get(&key).map(|binding| binding.index)
    }

    /// Serves a binding.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Unsupported`] where only the userspace path can; the key is then not served by the kernel.
    pub fn upsert(
        &mut self,
        maps: &mut ConfigMaps,
        sweeper: &Sweeper,
        binding: &Binding,
        removal: Removal,
    ) -> Result<(), DatapathError> {
        let entry = match self.entry(binding) {
            Ok(entry) => entry,
            Err(error) => {
                self.remove(maps, sweeper, binding.key, removal)?;
                set_port(maps, binding.key, PortMode::Userspace)?;
                return Err(error);
            }
        };
        let mut replaced = BTreeSet::new();
        for address in &self.public_addresses {
            let key = service_key(*address, binding.key);
            if let Some(old) = get(maps, &key)? {
                replaced.insert((old.index, old.generation));
            }
            maps.services
                .insert(key, entry, 0)
                .map_err(bpf("writing the map SERVICES"))?;
        }
        if !replaced.iter().any(|(index, _)| *index == binding.index) {
            maps.clear_counters(binding.index)?;
        }
        set_port(maps, binding.key, PortMode::Masquerade)?;
        let idle = binding
            .idle_timeout
            .map(|idle| u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX));
        {
            let mut timeouts = self.timeouts.write().unwrap_or_else(PoisonError::into_inner);
            match idle {
                Some(idle) => timeouts.insert(binding.index, idle),
                None => timeouts.remove(&binding.index),
            };
        }
        self.bindings.insert(binding.key, binding.clone());
        if let Some((_, unclaimed)) = &mut self.unclaimed {
            unclaimed.retain(|(_, key)| *key != binding.key);
        }
        for (index, generation) in replaced {
            if (index, generation) != (binding.index, binding.generation) {
                self.retire(sweeper, binding.key, index, generation, removal);
            }
        }
        Ok(())
    }

    /// Stops serving a key, by the removal rule.
    ///
    /// # Errors
    ///
    /// When a map can't be written.
    pub fn remove(
        &mut self,
        maps: &mut ConfigMaps,
        sweeper: &Sweeper,
        key: BindingKey,
        removal: Removal,
    ) -> Result<(), DatapathError> {
        let mut owners = BTreeSet::new();
        for address in &self.public_addresses {
            if let Some(old) = get(maps, &service_key(*address, key))? {
                owners.insert((old.index, old.generation));
                delete(maps, &service_key(*address, key))?;
            }
        }
        if let Some(binding) = self.bindings.remove(&key) {
            owners.insert((binding.index, binding.generation));
            self.timeouts
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&binding.index);
        }
        let serves_tcp = key.protocol == Protocol::Tcp && !owners.is_empty();
        for (index, generation) in owners {
            self.retire(sweeper, key, index, generation, removal);
        }
        if serves_tcp || self.drains.iter().any(|drain| drain.key == key) {
            return Ok(());
        }
        set_port(maps, key, PortMode::Unmanaged)
    }

    /// Ends the flows of a generation: UDP now, TCP when the drain is over.
    fn retire(
        &mut self,
        sweeper: &Sweeper,
        key: BindingKey,
        service: u32,
        generation: u32,
        removal: Removal,
    ) {
        let cut = Cut {
            service,
            protocol: key.protocol.into(),
            generation,
        };
        match (key.protocol, Instant::now().checked_add(removal.drain)) {
            (Protocol::Tcp, Some(until)) => self.drains.push(Drain {
                key,
                until,
                cut: Some(cut),
            }),
            (Protocol::Udp, _) | (_, None) => sweeper.cut(cut),
        }
    }

    /// Takes over public addresses and the SNAT address.
    ///
    /// # Errors
    ///
    /// When a map can't be written.
    pub fn set_environment(
        &mut self,
        maps: &mut ConfigMaps,
        environment: &Environment,
    ) -> Result<(), DatapathError> {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        };
        let addresses: BTreeSet<_> = environment.public_addresses.iter().filter_map(v4).collect();
        if addresses == self.public_addresses && self.snat_address == environment.snat_address {
            return Ok(());
        }
        let gone: Vec<_> = self.public_addresses.difference(&addresses).copied().collect();
        self.public_addresses = addresses;
        self.snat_address = environment.snat_address;
        for binding in self.bindings.values() {
            let Ok(entry) = self.entry(binding) else { continue };
            for address in &self.public_addresses {
                let key = service_key(*address, binding.key);
                maps.services
                    .insert(key, entry, 0)
                    .map_err(bpf("writing the map SERVICES"))?;
            }
            for address in &gone {
                delete(maps, &service_key(*address, binding.key))?;
            }
        }
        Ok(())
    }

    /// Ends drains whose time is over, and forgets what nobody has claimed.
    ///
    /// # Errors
    ///
    /// When a map can't be written.
    pub fn tick(&mut self, maps: &mut ConfigMaps, sweeper: &Sweeper) -> Result<(), DatapathError> {
        let now = Instant::now();
        self.end_drains(maps, sweeper, now)?;
        if self.unclaimed.as_ref().is_some_and(|(until, _)| *until <= now) {
            let (_, keys) = self.unclaimed.take().unwrap_or((now, BTreeSet::new()));
            self.forget(maps, &keys)?;
        }
        Ok(())
    }

    fn end_drains(
        &mut self,
        maps: &mut ConfigMaps,
        sweeper: &Sweeper,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let (over, going): (Vec<_>, Vec<_>) = self.drains.iter().partition(|drain| drain.until <= now);
        self.drains = going;
        for drain in over {
            if let Some(cut) = drain.cut {
                sweeper.cut(cut);
            }
            let goes_on =
                self.bindings.contains_key(&drain.key) || self.drains.iter().any(|d| d.key == drain.key);
            if !goes_on {
                set_port(maps, drain.key, PortMode::Unmanaged)?;
            }
        }
        Ok(())
    }

    /// Closes what an earlier run served and nobody wants any more. Its TCP flows get the usual drain.
    fn forget(
        &mut self,
        maps: &mut ConfigMaps,
        unclaimed: &BTreeSet<(Ipv4Addr, BindingKey)>,
    ) -> Result<(), DatapathError> {
        for (address, key) in unclaimed {
            delete(maps, &service_key(*address, *key))?;
            tracing::info!(
                component = "kernel", action = "forget", port = key.port, protocol = %key.protocol,
                "closed a port of an earlier run that no Service asks for"
            );
        }
        let until = Instant::now()
            .checked_add(Duration::from_secs(300))
            .unwrap_or_else(Instant::now);
        for key in managed_ports(maps)? {
            let known = self.bindings.contains_key(&key) || self.drains.iter().any(|drain| drain.key == key);
            match (known, key.protocol) {
                (true, _) => {}
                (false, Protocol::Tcp) => self.drains.push(Drain {
                    key,
                    until,
                    cut: None,
                }),
                (false, Protocol::Udp) => set_port(maps, key, PortMode::Unmanaged)?,
            }
        }
        Ok(())
    }

    /// The map entry of a binding.
    fn entry(&self, binding: &Binding) -> Result<ServiceEntry, DatapathError> {
        let unsupported = |text: String| Err(DatapathError::Unsupported(text));
        let SocketAddr::V4(backend) = binding.backend else {
            return unsupported(format!(
                "the target {} is IPv6: served by the userspace path",
                binding.backend
            ));
        };
        match binding.client_ip {
            ClientIp::Auto | ClientIp::Snat => {}
            ClientIp::ProxyV1 | ClientIp::ProxyV2 => {
                return unsupported("the PROXY protocol is spoken by the userspace path".to_owned());
            }
            ClientIp::Transparent => {
                return unsupported("transparent mode is not built: choose client-ip snat".to_owned());
            }
        }
        let Some(snat_address) = self.snat_address else {
            // Not "unsupported": it passes as soon as the tunnel is up.
            let text = "the tunnel interface has no IPv4 address yet to masquerade with; is WireGuard up?";
            return Err(DatapathError::Bpf(text.to_owned()));
        };
        Ok(ServiceEntry {
            backend: backend.ip().octets(),
            backend_port: backend.port(),
            mode: PortMode::Masquerade,
            egress_zone: self.tunnel_zone,
            snat_address: snat_address.octets(),
            snat_first: self.snat_range.first(),
            snat_count: self.snat_range.count(),
            index: binding.index,
            generation: binding.generation,
        })
    }
}
