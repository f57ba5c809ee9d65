//! Lists links, addresses and routes, reduced to what [`super::resolve`] needs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType};
use rtnetlink::{Error, Handle};
use tokio::task::JoinHandle;

use super::LinkError;
use crate::net::environment::Prefix;

/// The kernel answers in milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub mtu: u32,
    pub ethernet: bool,
}

/// One address, in the order of the kernel: the primary ones of an interface come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub index: u32,
    pub prefix: Prefix,
    /// Reachable from beyond the link.
    pub global: bool,
    /// Neither tentative, nor a duplicate, nor about to go (deprecated, or a temporary one of RFC 8981).
    pub lasting: bool,
}

/// One unicast route through one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub index: u32,
    pub destination: Prefix,
    pub gateway: Option<Ipv4Addr>,
    pub table: u32,
    pub metric: u32,
}

/// Lists everything, through a connection of its own.
pub(super) async fn read() -> Result<Dump, LinkError> {
    let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let dump = read_all(&handle, &task).await;
    task.abort();
    dump
}

async fn read_all(handle: &Handle, task: &JoinHandle<()>) -> Result<Dump, LinkError> {
    let links = collect("links", handle.link().get().execute(), task).await?;
    let addresses = collect("addresses", handle.address().get().execute(), task).await?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family;
        routes.extend(collect("routes", handle.route().get(wanted).execute(), task).await?);
    }
    Ok(Dump {
        links: links.iter().map(link).collect(),
        addresses: addresses.iter().filter_map(address).collect(),
        routes: routes.iter().flat_map(route).collect(),
    })
}

/// The whole answer, or an error. A connection that dies ends the stream as a finished answer does; so that half a list
/// is not taken for the whole, the connection must still live afterwards.
async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, Error>>,
    task: &JoinHandle<()>,
) -> Result<Vec<T>, LinkError> {
    let items = tokio::time::timeout(PATIENCE, stream.collect::<Vec<_>>())
        .await
        .map_err(|_| LinkError::Timeout {
            what,
            after: PATIENCE,
        })?;
    if task.is_finished() {
        return Err(LinkError::Cut(what));
    }
    items
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| LinkError::Refused {
            what,
            error: error.to_string(),
        })
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut other, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own; elsewhere IPv6 has no IFA_LOCAL.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(given) => flags = *given,
            _ => {}
        }
    }
    let address = local.or(other)?;
    let passing = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    // For IPv6 the bit of IFA_F_SECONDARY means temporary; for IPv4, a second address of the same prefix.
    let temporary = address.is_ipv6() && flags.contains(AddressFlags::Secondary);
    Some(Address {
        index: message.header.index,
        prefix: Prefix {
            address,
            length: message.header.prefix_len,
        },
        global: message.header.scope == AddressScope::Universe,
        lasting: !flags.intersects(passing) && !temporary,
    })
}

/// The routes of a message: one for each next hop. Only unicast ones lead anywhere.
fn route(message: &RouteMessage) -> Vec<Route> {
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return Vec::new(),
    };
    let mut route = Route {
        index: 0,
        destination: Prefix {
            address: unspecified,
            length: message.header.destination_prefix_length,
        },
        gateway: gateway(&message.attributes),
        table: u32::from(message.header.table),
        metric: 0,
    };
    let mut hops: &[RouteNextHop] = &[];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.index = *index,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination.address = (*address).into();
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.destination.address = (*address).into();
            }
            RouteAttribute::MultiPath(given) => hops = given,
            _ => {}
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    let by_hop = |hop: &RouteNextHop| Route {
        index: hop.interface_index,
        gateway: gateway(&hop.attributes),
        ..route.clone()
    };
    hops.iter().map(by_hop).collect()
}

/// The IPv4 gateway among attributes of a route or next hop.
fn gateway(attributes: &[RouteAttribute]) -> Option<Ipv4Addr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}
