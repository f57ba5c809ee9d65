//! Who stands at an interface's ingress, in the order in which packets meet them: TCX links first, then clsact filters
//! by their priority.
//!
//! The kernel is asked, not our own pins: another program's place is what the operator wants to know.

use aya::programs::{SchedClassifier, TcAttachType};
use exposer_common::names::{PROG_TUNNEL_INGRESS, PROG_WAN_INGRESS};
use futures::TryStreamExt as _;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use serde::Serialize;

use crate::datapath::kernel::error::{chain, os_error};

/// One program or filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stander {
    /// Its name, as far as the kernel knows one.
    pub name: String,
    /// Number of its program; none for a filter without one.
    pub id: Option<u32>,
    /// `tcx` or `clsact`.
    pub hook: &'static str,
    /// Priority of a clsact filter.
    pub priority: Option<u16>,
    /// Whether it is one of ours, by its name.
    pub ours: bool,
}

/// The ingress of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// In the order in which packets meet them.
    pub order: Vec<Stander>,
    /// Whether this kernel has TCX; none where it could not be asked.
    pub has_tcx: Option<bool>,
    /// What could not be asked, one sentence each.
    pub notes: Vec<String>,
}

impl Stander {
    fn new(name: &str, id: Option<u32>, hook: &'static str, priority: Option<u16>) -> Self {
        // A filter is shown as `name:[id]` by some tools and as `object:[section]` by others; ours is its bare name.
        let ours = [PROG_WAN_INGRESS, PROG_TUNNEL_INGRESS].contains(&name);
        Self {
            name: name.to_owned(),
            id,
            hook,
            priority,
            ours,
        }
    }
}

/// Asks the kernel. What it does not tell is a note, never an error.
pub async fn ingress(interface: &str) -> Hook {
    let mut hook = Hook::default();
    tcx(interface, &mut hook);
    match filters(interface).await {
        Ok(found) => hook.order.extend(found),
        Err(problem) => hook.notes.push(format!(
            "the clsact filters of {interface} can't be listed: {problem}"
        )),
    }
    hook
}

fn tcx(interface: &str, hook: &mut Hook) {
    match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Ok((_, programs)) => {
            hook.has_tcx = Some(true);
            hook.order.extend(programs.iter().map(|program| {
                let name = program.name_as_str().unwrap_or("without a name");
                Stander::new(name, Some(program.id()), "tcx", None)
            }));
        }
        // What a kernel says that does not know the attach type.
        Err(error) if os_error(&error) == Some(libc::EINVAL) => hook.has_tcx = Some(false),
        Err(error) if os_error(&error) == Some(libc::EPERM) => hook.notes.push(format!(
            "the programs at {interface} can't be listed without CAP_SYS_ADMIN: run this as root"
        )),
        Err(error) => hook.notes.push(format!(
            "the programs at {interface} can't be listed: {}",
            chain(&error)
        )),
    }
}

/// The filters of the clsact or ingress qdisc, by priority; none where there is no such qdisc.
async fn filters(interface: &str) -> Result<Vec<Stander>, String> {
    let index = nix::net::if_::if_nametoindex(interface).map_err(|error| error.to_string())?;
    let index = i32::try_from(index).map_err(|error| error.to_string())?;
    let (connection, handle, _unsolicited) =
        rtnetlink::new_connection().map_err(|error| error.to_string())?;
    let task = tokio::spawn(connection);
    let listed = handle
        .traffic_filter(index)
        .get()
        .ingress()
        .execute()
        .try_collect::<Vec<TcMessage>>()
        .await;
    task.abort();
    let mut found: Vec<Stander> = listed
        .map_err(|error| error.to_string())?
        .iter()
        .filter_map(filter)
        .collect();
    found.sort_by_key(|stander| stander.priority);
    Ok(found)
}

/// A filter, from its message. Each chain also has a message without a handle: the chain itself, not a filter.
fn filter(message: &TcMessage) -> Option<Stander> {
    if u32::from(message.header.handle) == 0 {
        return None;
    }
    // The upper half of `tcm_info` is the priority (linux/rtnetlink.h, TC_H_MAJ).
    let priority = u16::try_from(message.header.info >> 16_u32).ok();
    let (mut kind, mut name, mut id) = ("a filter", None, None);
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(text) => kind = text,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(text)) => name = Some(text.as_str()),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(number)) => id = Some(*number),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Stander::new(name.unwrap_or(kind), id, "clsact", priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_from_its_message() {
        let mut message = TcMessage::default();
        message.header.info = 50 << 16;
        assert_eq!(filter(&message), None, "the chain itself");
        message.header.handle = 1.into();
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgName("wan_ingress".into())),
                TcOption::Bpf(TcFilterBpfOption::ProgId(7)),
            ]),
        ];
        let stander = filter(&message).unwrap();
        assert_eq!(
            (stander.name.as_str(), stander.id, stander.priority, stander.ours),
            ("wan_ingress", Some(7), Some(50), true)
        );
        message.attributes = vec![TcAttribute::Kind("matchall".into())];
        let stander = filter(&message).unwrap();
        assert_eq!((stander.name.as_str(), stander.ours), ("matchall", false));
    }
}
