//! The attach ladder: TCX with a pinned link on Linux 6.6 and later, clsact with a fixed priority and handle below.
//!
//! Both survive the daemon, and both are replaced atomically by the next one: no packet passes without a program.

use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};

use super::error::{bpf, chain, os_error};
use crate::datapath::DatapathError;

/// Priority of our clsact filter; lower numbers run first, and tools choose theirs from 49152 down.
const CLSACT_PRIORITY: u16 = 50;
/// Handle of our clsact filter, so that the next daemon finds and replaces it.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// A TCX link (Linux 6.6), pinned.
    Tcx,
    /// A clsact filter through netlink.
    Clsact,
}

impl Rung {
    /// Lower-case name for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// An attached program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// Its index when the program was attached.
    pub ifindex: u32,
    /// The rung that held.
    pub rung: Rung,
    /// Why no higher one did.
    pub note: Option<String>,
}

/// Attaches `program` to the ingress of `interface`, replacing what an earlier run has left there.
///
/// # Errors
///
/// When no rung held, or the attached program does not show where it should.
pub fn attach(
    program: &mut SchedClassifier,
    name: &str,
    interface: &str,
    ifindex: u32,
    links: &Path,
) -> Result<Attached, DatapathError> {
    let pin = links.join(format!("{name}-{interface}"));
    let attached = |rung, note| Attached {
        interface: interface.to_owned(),
        ifindex,
        rung,
        note,
    };
    let result = match by_tcx(program, interface, &pin) {
        Ok(()) => {
            verify_tcx(program, name, interface)?;
            attached(Rung::Tcx, None)
        }
        // What a kernel says that does not know the attach type.
        Err(error) if os_error(&*error) == Some(libc::EINVAL) => {
            by_clsact(program, name, interface)?;
            attached(
                Rung::Clsact,
                Some("this kernel has no TCX (Linux 6.6 and later have)".to_owned()),
            )
        }
        Err(error) => {
            return Err(DatapathError::Bpf(format!(
                "attaching {name} to {interface}: {}",
                chain(&*error)
            )));
        }
    };
    forget_others(name, &pin, links);
    Ok(result)
}

/// aya has an error type for each of programs, links and pins.
type Cause = Box<dyn std::error::Error>;

fn by_tcx(program: &mut SchedClassifier, interface: &str, pin: &Path) -> Result<(), Cause> {
    match PinnedLink::from_pin(pin) {
        Ok(old) => {
            let link: SchedClassifierLink = FdLink::from(old).try_into()?;
            match program.attach_to_link(link) {
                Ok(id) => {
                    keep(program, id)?;
                    return Ok(());
                }
                // The interface was deleted, and the link with it ("Link has been severed").
                Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
                    let _ = std::fs::remove_file(pin);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, order)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    // Dropping what `pin` returns closes a descriptor; the pin holds the link.
    link.pin(pin)?;
    Ok(())
}

/// Takes a link out of the program, whose end would detach it. Its pin goes on holding it.
fn keep(program: &mut SchedClassifier, id: aya::programs::tc::SchedClassifierLinkId) -> Result<(), Cause> {
    let link = program.take_link(id)?;
    let _: FdLink = link.try_into()?;
    Ok(())
}

fn by_clsact(program: &mut SchedClassifier, name: &str, interface: &str) -> Result<(), DatapathError> {
    match qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(error) if os_error(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(bpf(&format!("adding the clsact qdisc to {interface}"))(error)),
    }
    let options = NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    };
    let id = match program.attach_with_options(
        interface,
        TcAttachType::Ingress,
        TcAttachOptions::Netlink(options),
    ) {
        Ok(id) => id,
        Err(error) if os_error(&error) == Some(libc::EEXIST) => {
            let link = SchedClassifierLink::attached(
                interface,
                TcAttachType::Ingress,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            )
            .map_err(bpf(&format!("finding the clsact filter of {interface}")))?;
            program
                .attach_to_link(link)
                .map_err(bpf(&format!("replacing {name} on {interface}")))?
        }
        Err(error) => return Err(bpf(&format!("attaching {name} to {interface} by clsact"))(error)),
    };
    let link = program.take_link(id).map_err(bpf("keeping the clsact filter"))?;
    // Its end would delete the filter; only `cleanup` does.
    std::mem::forget(link);
    Ok(())
}

/// Asks the kernel who stands at the hook: our program must be among them.
fn verify_tcx(program: &SchedClassifier, name: &str, interface: &str) -> Result<(), DatapathError> {
    let ours = program
        .info()
        .map_err(bpf(&format!("asking for {name}'s id")))?
        .id();
    let (_, present) = match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Ok(listed) => listed,
        // Opening a listed program by its id needs CAP_SYS_ADMIN, which the systemd unit does not give; that the link
        // was made or replaced has to be proof enough then.
        Err(error) if os_error(&error) == Some(libc::EPERM) => return Ok(()),
        Err(error) => return Err(bpf(&format!("asking who is attached to {interface}"))(error)),
    };
    if present.iter().any(|info| info.id() == ours) {
        return Ok(());
    }
    Err(DatapathError::Bpf(format!(
        "{name} was attached to {interface}, but the kernel does not list it there"
    )))
}

/// Removes pins of the same program on interfaces that are configured no more, which detaches it there.
fn forget_others(name: &str, keep: &Path, links: &Path) {
    for path in pins_of(name, links) {
        if path != keep && std::fs::remove_file(&path).is_ok() {
            tracing::info!(component = "kernel", action = "detach", pin = %path.display(), "removed a stale link pin");
        }
    }
}

fn pins_of(name: &str, links: &Path) -> Vec<PathBuf> {
    let prefix = format!("{name}-");
    let Ok(entries) = std::fs::read_dir(links) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|file| file.starts_with(&prefix))
        })
        .map(|entry| entry.path())
        .collect()
}
