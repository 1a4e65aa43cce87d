//! What a thread-per-core server asks of the system beside its ring, and the standard library does not offer:
//! a listener with options, and a thread on one core.
//!
//! Not here: anything that can be said with the standard library.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Options of a listening socket. What it accepts inherits all of them but the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several listeners may have one address, and the kernel spreads connections over them (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Connections that wait to be accepted; the system's `somaxconn` is the limit above it.
    pub backlog: u32,
    /// Send at once instead of collecting (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Fixes the send buffer (`SO_SNDBUF`), which bounds what a reader that stalls may pin in the kernel.
    pub send_buffer_bytes: Option<u32>,
    /// Fixes the receive buffer (`SO_RCVBUF`).
    pub recv_buffer_bytes: Option<u32>,
    /// How long sent bytes may go without an acknowledgement (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            reuse_port: false,
            backlog: 4096,
            no_delay: true,
            send_buffer_bytes: None,
            recv_buffer_bytes: None,
            user_timeout: None,
        }
    }
}

/// Whether nobody has `address`, not even listeners that would share it. Nobody is listened to for that.
pub fn is_free(address: SocketAddr) -> io::Result<bool> {
    let socket = stream_socket(address)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    match bind_socket(&socket, address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        bound => bound.map(|()| true),
    }
}

/// Lets other listeners have the address of this one from now on (`SO_REUSEPORT`), which nobody could while it was bound without.
pub fn share_port(listener: &TcpListener) -> io::Result<()> {
    set(listener, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// A listening socket at `address`, for [`Ring::listen`](crate::Ring::listen). The port may be one that was
/// just in use (`SO_REUSEADDR`).
pub fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, u32::from(options.reuse_port))?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, u32::from(options.no_delay))?;
    if let Some(bytes) = options.send_buffer_bytes {
        set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    if let Some(timeout) = options.user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX >> 1);
        set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)?;
    }
    bind_socket(&socket, address)?;
    let backlog = options.backlog.min(i32::MAX as u32) as libc::c_int;
    // SAFETY: `listen` takes two plain numbers and demands nothing.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(socket))
}

/// Keeps the calling thread on one core, by the system's number for it.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    const WORD_BITS: usize = u64::BITS as usize;
    let mut mask = [0u64; CORES_MAX / WORD_BITS];
    let word = mask.get_mut(core / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
    *word |= 1 << (core % WORD_BITS);
    // SAFETY: demands a pointer to as many bytes of CPU mask as the second argument says: the array is
    // borrowed for the call, and a mask is a sequence of words, lowest cores first.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    check(result).map(drop)
}

/// Cores that `pin_to_core` can name; the kernel's own limit is 8192.
const CORES_MAX: usize = 8192;

fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: `socket` takes three plain numbers and demands nothing.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: demands an open descriptor that nobody else owns: it was just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind_socket(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    match address {
        SocketAddr::V4(address) => {
            let native = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let length = size_of_val(&native) as libc::socklen_t;
            // SAFETY: demands a pointer to `length` bytes of socket address, borrowed for the call.
            check(unsafe { libc::bind(fd, (&raw const native).cast(), length) }).map(drop)
        }
        SocketAddr::V6(address) => {
            let native = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo().to_be(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let length = size_of_val(&native) as libc::socklen_t;
            // SAFETY: as above.
            check(unsafe { libc::bind(fd, (&raw const native).cast(), length) }).map(drop)
        }
    }
}

fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: demands a pointer to `length` bytes, borrowed for the call; all options set here are four
    // bytes.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    check(result).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_share_a_port_only_when_told_to() {
        let sharing = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = bind("127.0.0.1:0".parse().expect("an address"), &sharing).expect("a free port");
        let address = first.local_addr().expect("bound");
        let second = bind(address, &sharing).expect("a shared port");
        assert_eq!(second.local_addr().ok(), Some(address));
        assert!(bind(address, &ListenOptions::default()).is_err());
        assert!(!is_free(address).expect("an answer"));
        drop((first, second));
        assert!(is_free(address).expect("an answer"));
    }

    #[test]
    fn a_port_that_was_had_alone_is_shared_and_each_listener_has_a_part_of_the_connections() {
        let sharing = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = bind("127.0.0.1:0".parse().expect("an address"), &ListenOptions::default());
        let first = first.expect("a free port");
        let address = first.local_addr().expect("bound");
        assert!(bind(address, &sharing).is_err(), "it is had alone");
        share_port(&first).expect("it may be shared");
        let second = bind(address, &sharing).expect("a shared port");
        assert!(bind(address, &ListenOptions::default()).is_err());
        let connections: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address)).collect();
        let parts = [first, second].map(|listener| {
            listener.set_nonblocking(true).expect("a socket");
            std::iter::from_fn(|| listener.accept().ok()).count()
        });
        assert!(parts.iter().all(|part| *part > 0) && parts.iter().sum::<usize>() == 64, "{parts:?}");
        assert!(connections.iter().all(Result::is_ok));
    }

    #[test]
    fn a_thread_is_pinned_to_a_core_that_exists() {
        std::thread::spawn(|| {
            let allowed = std::fs::read_to_string("/proc/thread-self/status").expect("proc");
            let line = allowed.lines().find(|line| line.starts_with("Cpus_allowed_list")).expect("a line");
            let first: String =
                line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            pin_to_core(first.parse().expect("a number")).expect("a core we may use");
            assert_eq!(std::thread::available_parallelism().map(usize::from).ok(), Some(1));
        })
        .join()
        .expect("pinned");
        assert!(pin_to_core(CORES_MAX - 1).is_err());
        assert!(pin_to_core(CORES_MAX).is_err());
    }
}
