//! Both paths as one: who serves, what is reported, and what is tried again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exposer_common::model::{ClientIp, Protocol};
use exposer_common::proto::message::Path;
use exposer_edge::control::programming::Served;
use exposer_edge::datapath::accelerator::{Accelerator, Fallback};
use exposer_edge::datapath::combined::Combined;
use exposer_edge::datapath::recording::{Call, RecordingDatapath};
use exposer_edge::datapath::{
    Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal, ServiceRef,
};
use exposer_edge::net::environment::Environment;
use exposer_edge::status::{Attachment, ReasonCount};

use super::support::{id, key, tcp};

const REMOVAL: Removal = Removal {
    drain: Duration::from_secs(1),
};

type Clients = Vec<(SocketAddr, SocketAddr)>;

/// A recording datapath that may stand in for either path.
#[derive(Clone, Default)]
struct Part {
    record: RecordingDatapath,
    obstacle: Arc<Mutex<Option<String>>>,
    network: Arc<Mutex<Option<String>>>,
    clients: Arc<Mutex<Clients>>,
    handed: Arc<Mutex<Vec<Clients>>>,
}

impl Datapath for Part {
    fn upsert(&mut self, binding: &Binding, removal: Removal) -> Result<(), DatapathError> {
        self.record.upsert(binding, removal)
    }
    fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError> {
        self.record.remove(key, removal)
    }
    fn set_environment(&mut self, environment: &Environment) -> Result<(), DatapathError> {
        self.record.set_environment(environment)?;
        match self.network.lock().unwrap().clone() {
            Some(text) => Err(DatapathError::Bpf(text)),
            None => Ok(()),
        }
    }
    fn tick(&mut self) -> Result<(), DatapathError> {
        self.record.tick()
    }
    fn stats(&self, key: BindingKey) -> Option<BindingStats> {
        self.record
            .stats(key)
            .map(|stats| BindingStats { flows: 2, ..stats })
    }
}

impl Fallback for Part {
    fn live_udp_clients(&self, _: BindingKey) -> Clients {
        self.clients.lock().unwrap().clone()
    }
}

impl Accelerator for Part {
    fn obstacle(&self) -> Option<String> {
        self.obstacle.lock().unwrap().clone()
    }
    fn hand_over(&mut self, clients: &[(SocketAddr, SocketAddr)]) -> Result<(), DatapathError> {
        assert!(self.record.calls().is_empty() || !clients.is_empty());
        self.handed.lock().unwrap().push(clients.to_vec());
        Ok(())
    }
    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }
    fn flow_count(&self) -> u64 {
        0
    }
    fn reason_counts(&self) -> Result<Vec<ReasonCount>, DatapathError> {
        Ok(Vec::new())
    }
}

fn binding(key: BindingKey, generation: u32) -> Binding {
    Binding {
        key,
        service: ServiceRef {
            agent: "home".into(),
            id: id("web"),
        },
        index: 0,
        generation,
        backend: "10.96.0.10:80".parse().unwrap(),
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

fn both() -> (Combined<Part, Part>, Part, Part) {
    let (userspace, kernel) = (Part::default(), Part::default());
    (
        Combined::new(userspace.clone(), Some(kernel.clone())),
        userspace,
        kernel,
    )
}

fn by(path: Path, downgrade: Option<&str>) -> Served {
    Served {
        path,
        downgrade: downgrade.map(str::to_owned),
    }
}

fn ten_seconds(combined: &mut Combined<Part, Part>) -> Vec<(BindingKey, Served)> {
    (0..10)
        .flat_map(|_| combined.tick())
        .map(|change| (change.key, change.served))
        .collect()
}

#[test]
fn the_port_is_reserved_first_and_lost_together() {
    let (mut combined, userspace, kernel) = both();
    assert_eq!(
        combined.serve(&binding(tcp(80), 1), REMOVAL).unwrap(),
        by(Path::Kernel, None)
    );
    assert_eq!(combined.stats(tcp(80)).unwrap().flows, 4, "both paths count");
    let in_use = |key| DatapathError::PortInUse {
        key,
        address: [0, 0, 0, 0].into(),
        owner: String::new(),
    };
    userspace.record.fail_next(tcp(80), Box::new(in_use));
    userspace.record.fail_next(tcp(81), Box::new(in_use));
    for port in [80, 81] {
        let error = combined.serve(&binding(tcp(port), 2), REMOVAL).unwrap_err();
        assert!(matches!(error, DatapathError::PortInUse { .. }));
    }
    assert!(
        kernel.record.served().is_empty(),
        "the kernel serves what is not reserved"
    );
    assert!(
        !kernel
            .record
            .calls()
            .iter()
            .any(|call| matches!(call, Call::Upsert(b) if b.key == tcp(81)))
    );
}

#[test]
fn without_a_kernel_path_userspace_is_no_downgrade() {
    let mut combined: Combined<Part, Part> = Combined::new(Part::default(), None);
    assert_eq!(
        combined.serve(&binding(tcp(80), 1), REMOVAL).unwrap(),
        by(Path::Userspace, None)
    );
    assert!(ten_seconds(&mut combined).is_empty());
    combined.remove(tcp(80), REMOVAL).unwrap();
    assert_eq!(combined.stats(tcp(80)), None);
}

#[test]
fn a_reason_that_may_pass_is_tried_again_and_a_lasting_one_is_not() {
    let (mut combined, _, kernel) = both();
    kernel.record.fail_next(
        tcp(80),
        Box::new(|_| DatapathError::Bpf("the map is full".into())),
    );
    kernel.record.fail_next(
        tcp(81),
        Box::new(|_| DatapathError::Unsupported("the target is IPv6".into())),
    );
    let full = by(Path::Userspace, Some("the map is full"));
    assert_eq!(combined.serve(&binding(tcp(80), 1), REMOVAL).unwrap(), full);
    let six = by(Path::Userspace, Some("the target is IPv6"));
    assert_eq!(combined.serve(&binding(tcp(81), 1), REMOVAL).unwrap(), six);
    kernel.record.clear_calls();
    assert_eq!(ten_seconds(&mut combined), [(tcp(80), by(Path::Kernel, None))]);
    assert_eq!(kernel.record.calls(), [Call::Upsert(binding(tcp(80), 1))]);
    assert!(ten_seconds(&mut combined).is_empty(), "told twice");
    // A target that the kernel path can take ends the lasting one.
    assert_eq!(
        combined.serve(&binding(tcp(81), 2), REMOVAL).unwrap(),
        by(Path::Kernel, None)
    );
}

#[test]
fn a_kernel_path_that_lost_its_interface_is_reported_and_comes_back() {
    let (mut combined, _, kernel) = both();
    combined.serve(&binding(tcp(80), 1), REMOVAL).unwrap();
    *kernel.obstacle.lock().unwrap() = Some("wg0 is down".into());
    let told: Vec<Served> = combined
        .set_environment(&Environment::default())
        .into_iter()
        .map(|change| change.served)
        .collect();
    assert_eq!(told, [by(Path::Userspace, Some("wg0 is down"))]);
    assert_eq!(
        combined.serve(&binding(tcp(81), 1), REMOVAL).unwrap(),
        by(Path::Userspace, Some("wg0 is down"))
    );
    // It comes back, but can't be attached at first: the cause is shown, and tried again without a new event.
    *kernel.network.lock().unwrap() = Some("attach refused".into());
    combined.set_environment(&Environment::default());
    assert_eq!(combined.obstacle().as_deref(), Some("attach refused"));
    *kernel.network.lock().unwrap() = None;
    *kernel.obstacle.lock().unwrap() = None;
    let told = ten_seconds(&mut combined);
    assert_eq!(
        told,
        [
            (tcp(80), by(Path::Kernel, None)),
            (tcp(81), by(Path::Kernel, None))
        ]
    );
}

#[test]
fn live_udp_sessions_are_handed_over_before_the_kernel_serves_and_again() {
    let (mut combined, userspace, kernel) = both();
    let client: (SocketAddr, SocketAddr) = (
        "44.128.0.1:5000".parse().unwrap(),
        "44.128.0.2:53".parse().unwrap(),
    );
    *userspace.clients.lock().unwrap() = vec![client];
    combined
        .serve(&binding(key(53, Protocol::Udp), 1), REMOVAL)
        .unwrap();
    combined.serve(&binding(tcp(53), 2), REMOVAL).unwrap();
    assert_eq!(
        *kernel.handed.lock().unwrap(),
        [vec![client]],
        "once, and not for TCP"
    );
    ten_seconds(&mut combined);
    assert_eq!(kernel.handed.lock().unwrap().len(), 2);
    userspace.clients.lock().unwrap().clear();
    ten_seconds(&mut combined);
    assert_eq!(kernel.handed.lock().unwrap().len(), 2);
}
