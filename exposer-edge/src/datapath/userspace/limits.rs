//! Caps on connections and sessions, per Service and per source, held as guards: dropped when the connection is over.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use exposer_common::model::Protocol;

use super::stats::Failure;
use crate::datapath::ServiceRef;

/// Locks, also after a panic elsewhere: the maps guarded here are whole between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is counted as one source: an IPv4 address, or an IPv6 /64, which is what one subscriber gets.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Connections of one Service and protocol, over all its ports.
#[derive(Debug, Default)]
pub struct ServiceLoad(AtomicU32);

/// The caps and what is used of them.
#[derive(Debug)]
pub struct Limits {
    per_service: u32,
    per_source: u32,
    sources: Mutex<HashMap<(IpAddr, Protocol), u32>>,
    services: Mutex<HashMap<(ServiceRef, Protocol), Weak<ServiceLoad>>>,
}

/// The right to one connection or session. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    load: Arc<ServiceLoad>,
    source: (IpAddr, Protocol),
}

impl Limits {
    /// Caps as given; 0 allows nothing.
    #[must_use]
    pub fn new(per_service: u32, per_source: u32) -> Self {
        Self {
            per_service,
            per_source,
            sources: Mutex::default(),
            services: Mutex::default(),
        }
    }

    /// The load of `service`, shared by all its bindings of that protocol.
    pub fn load_of(&self, service: &ServiceRef, protocol: Protocol) -> Arc<ServiceLoad> {
        let mut services = lock(&self.services);
        services.retain(|_, load| load.strong_count() > 0);
        let known = services.entry((service.clone(), protocol)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let load = Arc::new(ServiceLoad::default());
            *known = Arc::downgrade(&load);
            load
        })
    }

    /// One more connection of `load` from `client`.
    ///
    /// # Errors
    ///
    /// Which cap is reached.
    pub fn acquire(
        self: &Arc<Self>,
        load: &Arc<ServiceLoad>,
        client: IpAddr,
        protocol: Protocol,
    ) -> Result<Permit, Failure> {
        let below = |used: u32| (used < self.per_service).then(|| used.saturating_add(1));
        load.0
            .fetch_update(Relaxed, Relaxed, below)
            .map_err(|_| Failure::ServiceCap)?;
        let source = (source_of(client), protocol);
        let mut sources = lock(&self.sources);
        let used = sources.entry(source).or_insert(0);
        if *used >= self.per_source {
            if *used == 0 {
                sources.remove(&source);
            }
            load.0.fetch_sub(1, Relaxed);
            return Err(Failure::SourceCap);
        }
        *used = used.saturating_add(1);
        drop(sources);
        Ok(Permit {
            limits: Arc::clone(self),
            load: Arc::clone(load),
            source,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.load.0.fetch_sub(1, Relaxed);
        let mut sources = lock(&self.limits.sources);
        if let Some(used) = sources.get_mut(&self.source) {
            *used = used.saturating_sub(1);
            if *used == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use exposer_common::model::ServiceId;

    use super::*;

    fn service(name: &str) -> ServiceRef {
        ServiceRef {
            agent: "home".into(),
            id: ServiceId {
                namespace: "default".into(),
                name: name.into(),
            },
        }
    }

    #[test]
    fn caps_hold_and_permits_come_back() {
        let limits = Arc::new(Limits::new(3, 2));
        let load = limits.load_of(&service("a"), Protocol::Tcp);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = limits.acquire(&load, one, Protocol::Tcp).unwrap();
        let _second = limits.acquire(&load, one, Protocol::Tcp).unwrap();
        assert_eq!(
            limits.acquire(&load, one, Protocol::Tcp).unwrap_err(),
            Failure::SourceCap
        );
        let _third = limits.acquire(&load, two, Protocol::Tcp).unwrap();
        assert_eq!(
            limits.acquire(&load, two, Protocol::Tcp).unwrap_err(),
            Failure::ServiceCap
        );
        drop(first);
        let _fourth = limits.acquire(&load, one, Protocol::Tcp).unwrap();
        // The same Service by another way is the same load.
        let same = limits.load_of(&service("a"), Protocol::Tcp);
        assert_eq!(
            limits.acquire(&same, two, Protocol::Tcp).unwrap_err(),
            Failure::ServiceCap
        );
        // UDP is counted apart.
        let udp = limits.load_of(&service("a"), Protocol::Udp);
        assert!(limits.acquire(&udp, one, Protocol::Udp).is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_sources_that_left() {
        let limits = Arc::new(Limits::new(10, 10));
        let load = limits.load_of(&service("a"), Protocol::Tcp);
        drop(limits.acquire(&load, "192.0.2.1".parse().unwrap(), Protocol::Tcp));
        assert!(lock(&limits.sources).is_empty());
    }

    #[test]
    fn an_ipv6_subscriber_is_one_source() {
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(source_of(a), source_of(b));
        assert_ne!(source_of(a), source_of(c));
        assert_eq!(
            source_of("::ffff:192.0.2.1".parse().unwrap()),
            "192.0.2.1".parse::<IpAddr>().unwrap()
        );
    }
}
