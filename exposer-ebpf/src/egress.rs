//! Leaving by the other interface.

use aya_ebpf::bindings::{bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head};
use aya_ebpf::programs::TcContext;
use exposer_common::flow::FlowEntry;
use exposer_common::link::LinkEntry;
use exposer_common::net::parse::ETH_LEN_U32;
use exposer_common::verdict::Reason;

use crate::maps::LINKS;

/// `AF_INET`.
const AF_INET: u32 = 2;

/// The link that a flow's packets leave by.
///
/// # Errors
///
/// `down` while the interface is gone: nothing may follow the default route instead (DESIGN §1.5).
#[inline(always)]
pub fn link(entry: &FlowEntry, down: Reason) -> Result<&'static LinkEntry, Reason> {
    let link = LINKS.get(entry.egress_zone.into()).ok_or(down)?;
    if link.ifindex == 0 { Err(down) } else { Ok(link) }
}

/// Sends a packet into the tunnel; the kernel strips its Ethernet header. Yields the action.
#[inline(always)]
pub fn into_tunnel(link: &LinkEntry) -> i32 {
    // SAFETY: the helper has no preconditions.
    let action = unsafe { bpf_redirect(link.ifindex, 0) };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    {
        action as i32
    }
}

/// Makes room for an Ethernet header and lets the kernel fill it for the next hop. Yields the action.
///
/// The next hop is named, because a lookup costs more than all the rest; only a client on the link itself, or a link
/// without a gateway, is looked up.
///
/// # Errors
///
/// [`Reason::RewriteFailed`] when there is no memory for the header.
#[inline(always)]
pub fn by_neighbour(ctx: &TcContext, link: &LinkEntry, on_link: bool) -> Result<i32, Reason> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid; pointers into the packet are not used after this.
    let changed = unsafe { bpf_skb_change_head(skb, ETH_LEN_U32, 0) };
    if changed != 0 {
        return Err(Reason::RewriteFailed);
    }
    let action = if on_link || link.next_hop == [0; 4] {
        // SAFETY: no parameters: the kernel looks the destination up.
        unsafe { bpf_redirect_neigh(link.ifindex, core::ptr::null_mut(), 0, 0) }
    } else {
        let mut hop = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: [u32::from_ne_bytes(link.next_hop), 0, 0, 0],
            },
        };
        #[expect(clippy::cast_possible_truncation, reason = "20 bytes")]
        let length = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: the parameters are fully initialised, and the length is theirs.
        unsafe { bpf_redirect_neigh(link.ifindex, &mut hop, length, 0) }
    };
    #[expect(clippy::cast_possible_truncation, reason = "an action code")]
    Ok(action as i32)
}
