//! What the composition of both paths needs of the kernel path besides the [`Datapath`] trait.

use super::kernel::KernelDatapath;
use super::{Datapath, DatapathError};
use crate::status::{Attachment, ReasonCount};

/// A datapath that works on top of the userspace path.
pub trait Accelerator: Datapath {
    /// Why it carries nothing at present although bindings were accepted, in words for the operator; none if it does.
    fn obstacle(&self) -> Option<String>;

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

impl Accelerator for KernelDatapath {
    fn obstacle(&self) -> Option<String> {
        self.attached().into_iter().find_map(|(program, attached)| {
            attached.is_none().then(|| {
                format!("the program {program} is not attached: its interface is missing, down or of the wrong kind")
            })
        })
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
