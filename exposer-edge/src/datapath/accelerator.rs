//! What the composition of both paths needs of each besides the [`Datapath`] trait.

use std::net::SocketAddr;

use super::kernel::KernelDatapath;
use super::userspace::UserspaceDatapath;
use super::{BindingKey, Datapath, DatapathError};
use crate::status::{Attachment, ReasonCount};

/// A datapath that works on top of the userspace path.
pub trait Accelerator: Datapath {
    /// Why it carries nothing at present although bindings were accepted, in words for the operator; none if it does.
    fn obstacle(&self) -> Option<String>;

    /// Leaves UDP clients to the fallback, as (client, public address), because it serves them already (DESIGN §2,
    /// hand-over). To be repeated every ten seconds while their sessions live.
    ///
    /// # Errors
    ///
    /// When it can't be written down; some of the clients may change the path then.
    fn hand_over(&mut self, clients: &[(SocketAddr, SocketAddr)]) -> Result<(), DatapathError>;

    /// How its programs are attached.
    fn attachments(&self) -> Vec<Attachment>;

    /// Entries of its flow table.
    fn flow_count(&self) -> u64;

    /// Packets by reason; reasons that were never given are left out.
    ///
    /// # Errors
    ///
    /// When they can't be read.
    fn reason_counts(&self) -> Result<Vec<ReasonCount>, DatapathError>;
}

/// The datapath below the accelerator: it can serve every binding.
pub trait Fallback: Datapath {
    /// The live UDP sessions of `key`, as (client, public address).
    fn live_udp_clients(&self, key: BindingKey) -> Vec<(SocketAddr, SocketAddr)>;
}

impl Fallback for UserspaceDatapath {
    fn live_udp_clients(&self, key: BindingKey) -> Vec<(SocketAddr, SocketAddr)> {
        Self::live_udp_clients(self, key)
    }
}

impl Accelerator for KernelDatapath {
    fn obstacle(&self) -> Option<String> {
        self.attached().into_iter().find_map(|(program, attached)| {
            attached.is_none().then(|| {
                format!("the program {program} is not attached: its interface is missing, down or of the wrong kind")
            })
        })
    }

    fn hand_over(&mut self, clients: &[(SocketAddr, SocketAddr)]) -> Result<(), DatapathError> {
        Self::hand_over(self, clients)
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.attached()
            .into_iter()
            .map(|(program, attached)| match attached {
                Some(at) => Attachment {
                    interface: at.interface.clone(),
                    program: program.to_owned(),
                    rung: at.rung.as_str().to_owned(),
                    note: at.note.clone(),
                },
                None => Attachment {
                    interface: String::new(),
                    program: program.to_owned(),
                    rung: "none".to_owned(),
                    note: None,
                },
            })
            .collect()
    }

    fn flow_count(&self) -> u64 {
        Self::flow_count(self)
    }

    fn reason_counts(&self) -> Result<Vec<ReasonCount>, DatapathError> {
        let counts = Self::reason_counts(self)?;
        Ok(counts
            .into_iter()
            .map(|(reason, count)| ReasonCount::new(reason, count))
            .collect())
    }
}
