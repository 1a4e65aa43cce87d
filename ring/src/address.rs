//! The peer's address as the kernel writes it: read with safe code, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;

/// `struct sockaddr_in6` is the largest that a TCP listener brings.
const BYTES: usize = 28;
/// `sin_family` and `sin6_family`, native byte order.
const FAMILY: Range<usize> = 0..2;
/// `sin_port` and `sin6_port`, network byte order.
const PORT: Range<usize> = 2..4;
/// `sin_addr`, network byte order.
const V4_ADDRESS: Range<usize> = 4..8;
/// `sin6_flowinfo`, network byte order.
const V6_FLOW: Range<usize> = 4..8;
/// `sin6_addr`, network byte order.
const V6_ADDRESS: Range<usize> = 8..24;
/// `sin6_scope_id`, native byte order.
const V6_SCOPE: Range<usize> = 24..28;

const _: () = assert!(BYTES == size_of::<libc::sockaddr_in6>());
const _: () = assert!(V4_ADDRESS.end <= size_of::<libc::sockaddr_in>());

/// Room for an address and its length, as accept fills them in.
#[repr(C, align(8))]
pub(crate) struct PeerAddress {
    pub(crate) bytes: [u8; BYTES],
    pub(crate) length: libc::socklen_t,
}

impl PeerAddress {
    pub(crate) fn empty() -> PeerAddress {
        PeerAddress { bytes: [0; BYTES], length: BYTES as libc::socklen_t }
    }

    /// The address; `None` if it is of a family that no TCP listener has.
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.field(PORT));
        match i32::from(u16::from_ne_bytes(self.field(FAMILY))) {
            libc::AF_INET => {
                let address = Ipv4Addr::from(self.field::<4>(V4_ADDRESS));
                Some(SocketAddr::new(IpAddr::V4(address), port))
            }
            libc::AF_INET6 => {
                let address = Ipv6Addr::from(self.field::<16>(V6_ADDRESS));
                let flow = u32::from_be_bytes(self.field(V6_FLOW));
                let scope = u32::from_ne_bytes(self.field(V6_SCOPE));
                Some(SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope)))
            }
            _ => None,
        }
    }

    fn field<const N: usize>(&self, range: Range<usize>) -> [u8; N] {
        self.bytes[range].try_into().expect("the named ranges have the sizes of their fields")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_read_and_others_refused() {
        let mut peer = PeerAddress::empty();
        peer.bytes[FAMILY].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        peer.bytes[PORT].copy_from_slice(&8080u16.to_be_bytes());
        peer.bytes[V4_ADDRESS].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(peer.socket_addr(), "10.1.2.3:8080".parse().ok());

        peer.bytes[FAMILY].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        peer.bytes[V6_FLOW].fill(0);
        peer.bytes[V6_ADDRESS].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        assert_eq!(peer.socket_addr(), "[::1]:8080".parse().ok());

        peer.bytes[FAMILY].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(peer.socket_addr(), None);
    }
}
