//! Batched UDP: recvmmsg with GRO in, GSO out (through `quinn-udp`), with buffers that belong to the thread.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{SockRef, Socket};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams, or GRO batches of datagrams, that one system call takes.
const BATCH: usize = 16;
/// The largest UDP payload is 65,507 bytes (IPv4), and a GRO batch has at most 65,535.
const SLOT: usize = 65_536;

/// Bytes of an IPv4 and a UDP header.
const V4_HEADERS: usize = 28;
/// UDP payload that fits the MTU of an Ethernet link with IPv6: 1500 − 40 − 8.
const COMMON_SEGMENT: usize = 1_452;
/// UDP payload that fits the smallest MTU of a tunnel that carries IPv6: 1280 − 40 − 8.
const TUNNEL_SEGMENT: usize = 1_232;

thread_local! {
    /// Never held across an await: filled and emptied within one poll. The kernel backs only what was ever filled.
    static SLOTS: RefCell<Box<[u8]>> = RefCell::new(vec![0; BATCH.saturating_mul(SLOT)].into_boxed_slice());
}

/// Datagrams of the same sender, all of the same size except the last.
#[derive(Debug)]
pub struct Datagrams<'a> {
    /// Who sent them.
    pub sender: SocketAddr,
    /// The address that they were sent to.
    pub destination: Option<IpAddr>,
    bytes: &'a [u8],
    /// Size of each but the last; 0 for a datagram without payload.
    stride: usize,
    ecn: Option<EcnCodepoint>,
}

impl Datagrams<'_> {
    /// How many they are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let count = self.bytes.len().div_ceil(self.stride.max(1)).max(1);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many left.
    pub datagrams: u64,
    /// Their payload.
    pub bytes: u64,
    /// Whether an ICMP error said that an earlier datagram found nobody.
    pub refused: bool,
    /// The last error of one that did not leave; `WouldBlock` where the socket's buffer was full.
    pub error: Option<io::Error>,
}

/// A UDP socket for batches.
#[derive(Debug)]
pub struct UdpIo {
    socket: UdpSocket,
    /// Of the system rather than of the socket: what it can do, and whether it failed at segmentation.
    state: Arc<UdpSocketState>,
    /// Largest payload that may be sent as a segment of a train.
    segment: usize,
}

impl UdpIo {
    /// Takes over a bound non-blocking socket. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses an option, or the runtime can't watch the socket.
    pub fn bound(socket: Socket) -> io::Result<Self> {
        let v6 = socket.local_addr()?.is_ipv6();
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket, v6)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            state: Arc::new(state),
            segment: COMMON_SEGMENT,
        })
    }

    /// Takes over a connected non-blocking socket, with what `sibling` knows of the system, which spares the session
    /// the six system calls of finding out. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses an option, or the runtime can't watch the socket.
    pub fn connected(socket: Socket, sibling: &Self) -> io::Result<Self> {
        let v6 = socket.local_addr()?.is_ipv6();
        set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        let mtu = if v6 {
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            None
        } else {
            set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            getsockopt(&socket, sockopt::IpMtu).ok()
        };
        let segment = mtu
            .and_then(|mtu| usize::try_from(mtu).ok())
            .map_or(TUNNEL_SEGMENT, |mtu| mtu.saturating_sub(V4_HEADERS));
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            state: Arc::clone(&sibling.state),
            segment,
        })
    }

    /// The socket, for its options.
    #[must_use]
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Wishes for buffers of `bytes`: beyond `net.core.rmem_max` where the process may (`CAP_NET_ADMIN`), else up to it.
    pub fn widen(&self, bytes: usize) {
        let socket = SockRef::from(&self.socket);
        if setsockopt(&self.socket, sockopt::RcvBufForce, &bytes).is_err() {
            let _smaller = socket.set_recv_buffer_size(bytes);
        }
        if setsockopt(&self.socket, sockopt::SndBufForce, &bytes).is_err() {
            let _smaller = socket.set_send_buffer_size(bytes);
        }
    }

    /// Waits for datagrams and hands one batch to `each`.
    ///
    /// # Errors
    ///
    /// What recvmmsg says; on a connected socket also ICMP errors about what was sent (`ECONNREFUSED`), unless a send
    /// meets them first.
    pub async fn receive(&self, mut each: impl FnMut(&Datagrams<'_>)) -> io::Result<()> {
        self.socket
            .async_io(Interest::READABLE, || {
                SLOTS.with_borrow_mut(|slots| self.batch(slots, &mut each))
            })
            .await
    }

    fn batch(&self, slots: &mut [u8], each: &mut impl FnMut(&Datagrams<'_>)) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH];
        let received = {
            let mut parts = slots.chunks_exact_mut(SLOT);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
            self.state.recv((&self.socket).into(), &mut slices, &mut metas)?
        };
        for (meta, slot) in metas.iter().zip(slots.chunks_exact(SLOT)).take(received) {
            each(&Datagrams {
                sender: meta.addr,
                destination: meta.dst_ip,
                bytes: slot.get(..meta.len).unwrap_or_default(),
                stride: meta.stride,
                ecn: meta.ecn,
            });
        }
        Ok(())
    }

    /// Sends `datagrams` to `destination`, from `source` where the socket is bound to a wildcard. What the socket does
    /// not take at once is lost, as UDP is; nothing is queued here.
    pub fn send(&self, datagrams: &Datagrams<'_>, destination: SocketAddr, source: Option<IpAddr>) -> Sent {
        let mut sent = Sent::default();
        let whole = Transmit {
            destination,
            ecn: datagrams.ecn,
            contents: datagrams.bytes,
            segment_size: None,
            src_ip: source,
        };
        if datagrams.count() == 1 {
            self.send_one(&whole, 1, &mut sent);
            return sent;
        }
        // A train with segments above the path's MTU fails, and `quinn-udp` would give up segmentation for ever.
        let fits = datagrams.stride <= self.segment;
        let segments = if fits { self.state.max_gso_segments() } else { 1 };
        for run in datagrams.bytes.chunks(datagrams.stride.saturating_mul(segments)) {
            let count = u64::try_from(run.len().div_ceil(datagrams.stride.max(1))).unwrap_or(u64::MAX);
            let train = Transmit {
                contents: run,
                segment_size: (count > 1).then_some(datagrams.stride),
                ..whole.clone()
            };
            let before = sent.datagrams;
            self.send_one(&train, count, &mut sent);
            let blocked = sent
                .error
                .as_ref()
                .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if count > 1 && sent.datagrams == before && !blocked {
                // A path MTU that shrank, or a device that can't segment: one by one, as fragments if need be.
                sent.error = None;
                for contents in run.chunks(datagrams.stride) {
                    self.send_one(
                        &Transmit {
                            contents,
                            ..whole.clone()
                        },
                        1,
                        &mut sent,
                    );
                }
            }
        }
        sent
    }

    fn send_one(&self, transmit: &Transmit<'_>, count: u64, sent: &mut Sent) {
        // Not by the runtime's readiness: a datagram is sent at once or lost, and a fresh socket has no readiness yet.
        let send = || self.state.try_send((&self.socket).into(), transmit);
        let mut outcome = send();
        if outcome
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            // An ICMP error about an earlier datagram is reported instead of sending this one (udp(7)): once more.
            sent.refused = true;
            outcome = send();
        }
        match outcome {
            Ok(()) => {
                sent.datagrams = sent.datagrams.saturating_add(count);
                let bytes = u64::try_from(transmit.contents.len()).unwrap_or(u64::MAX);
                sent.bytes = sent.bytes.saturating_add(bytes);
            }
            Err(error) => sent.error = Some(error),
        }
    }
}

/// `quinn-udp` forbids fragments, for QUIC's path MTU discovery. A forwarder must take datagrams of every size: the
/// kernel's default (`IP_PMTUDISC_WANT`) fragments what is larger than the path's MTU.
fn allow_fragments(socket: &Socket, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
        set_int(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_WANT,
        )
    } else {
        set_int(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_WANT,
        )
    }
}

fn set_int(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the descriptor is open as long as `socket` lives; the kernel reads one int from a live local.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    Errno::result(outcome).map(drop).map_err(Into::into)
}
