//! Socket operations: what is queued, and what each demands.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bytes::Bytes;
use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};

use crate::address::PeerAddress;
use crate::lent::Lent;
use crate::operation::{Kind, Mode, Operation, receive_user_data};
use crate::ring::BUFFER_GROUP;
use crate::{Completion, Errno, ListenerId, Received, RecvBuffer, Ring, RingAddress, Socket, Token};

/// `IORING_RECVSEND_POLL_FIRST`: wait for data before taking a buffer.
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT`.
const RECV_MULTISHOT: u16 = 1 << 1;

/// Whether a receive expects data to be there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// Try first: after an accept or an adoption the bytes are often there.
    First,
    /// Wait first: a receive that starved takes a buffer only when it has data for it.
    Again,
}

impl Ring {
    /// Takes over a listening socket and keeps `RingConfig::accepts` accepts posted on it. Options set on the
    /// listener (`TCP_NODELAY` and the like) are inherited by what it accepts.
    pub fn listen(&mut self, listener: TcpListener) -> ListenerId {
        self.listen_with(listener, None)
    }

    /// As [`Ring::listen`], for at most `room` connections; [`Ring::admit`] says when more may come. What the peers have
    /// begun meanwhile waits in the listener's backlog.
    pub fn listen_within(&mut self, listener: TcpListener, room: u32) -> ListenerId {
        self.listen_with(listener, Some(room))
    }

    /// From now on `room` more connections are accepted. Each that comes takes one from it, so room is taken back by not
    /// giving it again; accepts that are posted are not cancelled. It becomes 0 by itself when the system has no
    /// descriptor or memory left for a connection ([`Errno::is_out_of_something`](crate::Errno::is_out_of_something)).
    pub fn admit(&mut self, listener: ListenerId, room: u32) {
        if self.listeners.is_accepting(listener) {
            self.listeners.set_room(listener, room);
            self.post_accepts(listener);
        }
    }

    fn listen_with(&mut self, listener: TcpListener, room: Option<u32>) -> ListenerId {
        // On a non-blocking descriptor a posted accept would fail instead of waiting.
        listener.set_nonblocking(false).expect("an open socket can be switched");
        let id = self.listeners.insert(listener, room);
        self.post_accepts(id);
        id
    }

    /// Stops taking connections; the backlog of the listener keeps what the peers have begun. Connections
    /// accepted before still arrive.
    pub fn pause_accepts(&mut self, listener: ListenerId) {
        self.listeners.pause(listener);
        self.cancel_accepts(listener);
    }

    /// Takes connections again, after a pause or after an error that stopped the listener.
    pub fn resume_accepts(&mut self, listener: ListenerId) {
        assert!(self.listeners.is_open(listener), "a closed listener stays closed");
        self.listeners.resume(listener);
        self.post_accepts(listener);
    }

    /// Cancels the posted accepts and closes the listener after the last of them. Connections accepted before
    /// still arrive, under the same name.
    pub fn close_listener(&mut self, listener: ListenerId) {
        assert!(self.listeners.is_open(listener), "a listener is closed once");
        self.cancel_accepts(listener);
        self.listeners.close(listener);
    }

    /// Receives once. One completion, with at most one buffer of data.
    pub fn recv_once(&mut self, socket: Socket, token: Token) {
        self.receives.arm(socket, token, Mode::Once);
        self.push_receive(socket, Mode::Once, Arm::First);
    }

    /// Receives until further notice. One completion for each buffer of data, until one that says it is over.
    pub fn recv_multishot(&mut self, socket: Socket, token: Token) {
        self.receives.arm(socket, token, Mode::Multishot);
        self.push_receive(socket, Mode::Multishot, Arm::First);
    }

    /// Sends some or all of `bytes`. At most one send may be in flight for each socket: the kernel does not
    /// order two.
    pub fn send(&mut self, socket: Socket, token: Token, bytes: Bytes) {
        let address = bytes.as_ptr();
        // The kernel reports the count in 31 bits; what is beyond is a short send.
        let length = bytes.len().min(i32::MAX as usize) as u32;
        let slot = self.in_flight.insert(Operation::Send { token, bytes });
        let entry = opcode::Send::new(Fixed(socket.0), address, length)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(Kind::Send.with(u64::from(slot)));
        // SAFETY: the address is that of `length` bytes of `bytes`, which nobody can change (`Bytes` is
        // immutable) and which stay where they are while the handle moves (it points to them). The handle
        // sits in `in_flight` until `dispatch` removes it after the completion; a ring that is dropped waits
        // for that or leaks it.
        unsafe { self.push(entry) };
    }

    /// Shuts both directions down, so the peer sees the end and an armed receive ends with its own
    /// completion. A receive that waits for a buffer ends with [`Received::End`].
    pub fn shutdown(&mut self, socket: Socket, token: Token) {
        if let Some(token) = self.receives.shut_down(socket) {
            self.made.push(Completion::Received { token, result: Received::End });
        }
        let entry = opcode::Shutdown::new(Fixed(socket.0), libc::SHUT_RDWR)
            .build()
            .user_data(Kind::ShutDown.with(token.value()));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
    }

    /// Frees the slot. Panics if a receive is armed; no send may be in flight either. Without a shutdown
    /// before, a socket that was sent to another ring lives on there, and any other is closed with it.
    pub fn close(&mut self, socket: Socket, token: Token) {
        assert!(self.receives.is_idle(socket), "a socket is closed after its receive ended");
        let entry = opcode::Close::new(Fixed(socket.0)).build().user_data(Kind::Close.with(token.value()));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
    }

    /// Gives a receive buffer back. One from `RecvBuffer::from_vec` or of another size is dropped.
    pub fn recycle(&mut self, buffer: RecvBuffer) {
        self.pool.recycle(buffer);
    }

    /// Gives another ring a [`Completion::Doorbell`], which ends its turn. Only a failure is counted here.
    pub fn doorbell(&mut self, target: RingAddress) {
        let entry = opcode::MsgRingData::new(Fd(target.0), 0, Kind::Doorbell.with(0), None)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(Kind::DoorbellFailed.with(0));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
    }

    /// Installs a socket in another ring, which gets [`Completion::Adopted`] with `tag` (below `1 << 56`).
    /// Nothing may be in flight on it. The slot here stays open: after [`Completion::SocketSent`] close it,
    /// without a shutdown if it arrived. A ring cannot send to itself (`EINVAL`).
    pub fn send_socket(&mut self, socket: Socket, target: RingAddress, tag: u64, token: Token) {
        assert!(self.receives.is_idle(socket), "a socket moves when its receive ended");
        let adopted = Kind::Adopted.with(Token::new(tag).value());
        let slot = DestinationSlot::auto_target();
        let entry = opcode::MsgRingSendFd::new(Fd(target.0), Fixed(socket.0), slot, adopted)
            .build()
            .user_data(Kind::SocketSent.with(token.value()));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
    }

    /// A plain descriptor of the same socket, for what a direct descriptor cannot do: reading options, or
    /// handing it to another process. Costs a system call at once, so it is not for the usual way.
    pub fn duplicate(&mut self, socket: Socket) -> io::Result<OwnedFd> {
        let user_data = Kind::Install.with(0);
        let entry = opcode::FixedFdInstall::new(Fixed(socket.0), 0).build().user_data(user_data);
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
        self.submit_early();
        // The kernel executes it while it is submitted, unless it had no memory to take it.
        let position = self.arrived.iter().position(|arrival| arrival.user_data == user_data);
        let arrival = position.and_then(|position| self.arrived.remove(position));
        let result = arrival.map_or(-libc::EAGAIN, |arrival| arrival.result);
        Ok(own_installed(Errno::split(result)?))
    }

    /// Ends all receives and all sends of this ring, each with its own completion: a receive with what came before or with
    /// [`Received::Disarmed`], a send with what was sent or with [`Errno::CANCELLED`], which is nothing. The sockets are not touched.
    ///
    /// Each is cancelled by its own name: by descriptor the kernel would walk all that is armed for every one.
    pub fn cancel_transfers(&mut self) {
        for token in self.receives.end_parked() {
            self.made.push(Completion::Received { token, result: Received::Disarmed });
        }
        let receives = self.receives.all_armed().into_iter().map(receive_user_data);
        let sends = self.in_flight.sends().into_iter().map(|slot| Kind::Send.with(u64::from(slot)));
        for user_data in receives.chain(sends).collect::<Vec<_>>() {
            let cancel = CancelBuilder::user_data(user_data);
            let entry = opcode::AsyncCancel2::new(cancel).build();
            let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(Kind::Cancel.with(0));
            // SAFETY: the entry holds no address.
            unsafe { self.push(entry) };
        }
    }

    /// Puts sockets of another process into the table of this ring, in this order. Only for a ring that has none yet and takes none:
    /// the slots are given out from the first on, before [`Ring::listen`]. Nothing is armed on them.
    ///
    /// # Errors
    /// Those of the kernel: then none of `sockets` is in the table.
    pub fn adopt(&mut self, sockets: Vec<OwnedFd>) -> io::Result<Vec<Socket>> {
        assert!(self.listeners.is_empty(), "slots are given out before the kernel gives out any");
        let first = self.adopted;
        let descriptors: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        if first as usize + descriptors.len() > self.receives.slots() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let taken = self.io.submitter().register_files_update(first, &descriptors)?;
        if taken < descriptors.len() {
            let undone = vec![-1; taken];
            self.io.submitter().register_files_update(first, &undone)?;
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // From here on the table holds them; the descriptors themselves are closed.
        self.adopted = first + taken as u32;
        let adopted: Vec<Socket> = (first..self.adopted).map(Socket).collect();
        adopted.iter().for_each(|socket| self.receives.open(*socket));
        Ok(adopted)
    }

    /// Another descriptor of a listening socket, for handing it to another process.
    pub fn duplicate_listener(&self, listener: ListenerId) -> io::Result<TcpListener> {
        self.listeners.duplicate(listener)
    }

    /// Arms parked receives, as many as there are buffers. Returns whether some are left although there may
    /// be buffers: what was armed may turn out to have no data.
    pub(crate) fn arm_parked(&mut self) -> bool {
        if self.receives.parked() == 0 || self.closing {
            return false;
        }
        for _ in 0..self.pool.available() {
            let Some((socket, mode)) = self.receives.unpark() else { return false };
            self.push_receive(socket, mode, Arm::Again);
        }
        self.receives.parked() > 0 && self.pool.available() > 0
    }

    /// Posts accepts until there are as many as configured, or as there is room for.
    pub(crate) fn post_accepts(&mut self, listener: ListenerId) {
        while self.listeners.posted(listener).len() < self.listeners.postable(listener, self.accepts) {
            self.post_accept(listener);
        }
    }

    /// Keeps the one read posted that a [`Waker`](crate::Waker) completes.
    pub(crate) fn post_wake(&mut self) {
        let count = Lent::new(0u64);
        let address = count.as_ptr().cast::<u8>();
        let slot = self.in_flight.insert(Operation::Wake { count });
        let event = Fd(self.waker.file().as_raw_fd());
        let entry = opcode::Read::new(event, address, size_of::<u64>() as u32)
            .build()
            .user_data(Kind::Wake.with(u64::from(slot)));
        // SAFETY: the address is that of eight bytes owned by `in_flight` until the completion; see `Lent`.
        unsafe { self.push(entry) };
    }

    fn post_accept(&mut self, listener: ListenerId) {
        let address = Lent::new(PeerAddress::empty());
        let peer = address.as_ptr();
        // SAFETY: demands a pointer into an allocation: `peer` points to a whole `PeerAddress`.
        let bytes = unsafe { &raw mut (*peer).bytes };
        // SAFETY: as above.
        let length = unsafe { &raw mut (*peer).length };
        let slot = self.in_flight.insert(Operation::Accept { listener, address });
        let entry = opcode::Accept::new(Fd(self.listeners.fd(listener)), bytes.cast(), length)
            .file_index(Some(DestinationSlot::auto_target()))
            .build()
            .user_data(Kind::Accept.with(u64::from(slot)));
        self.listeners.accept_posted(listener, slot);
        // SAFETY: both addresses lie in a `PeerAddress` owned by `in_flight` until the completion (see
        // `Lent`), and its `length` tells the kernel how many bytes there are.
        unsafe { self.push(entry) };
    }

    fn cancel_accepts(&mut self, listener: ListenerId) {
        let posted = self.listeners.posted(listener).to_vec();
        for slot in posted {
            let accept = CancelBuilder::user_data(Kind::Accept.with(u64::from(slot)));
            let entry = opcode::AsyncCancel2::new(accept).build().user_data(Kind::Cancel.with(0));
            // SAFETY: the entry holds no address.
            unsafe { self.push(entry) };
        }
    }

    fn push_receive(&mut self, socket: Socket, mode: Mode, arm: Arm) {
        let mut options = 0;
        if mode == Mode::Multishot {
            options |= RECV_MULTISHOT;
        }
        if arm == Arm::Again {
            options |= POLL_FIRST;
        }
        let entry = opcode::Recv::new(Fixed(socket.0), std::ptr::null_mut(), 0)
            .ioprio(options)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(Flags::BUFFER_SELECT)
            .user_data(receive_user_data(socket));
        // SAFETY: the entry holds no address. The kernel takes a buffer from the pool, which keeps its memory
        // until the completion names it (`dispatch`); a ring that is dropped waits for armed receives or
        // leaks the pool.
        unsafe { self.push(entry) };
    }
}

/// The descriptor that a completion of `Kind::Install` names. Called once for each such completion.
pub(crate) fn own_installed(fd: u32) -> OwnedFd {
    // SAFETY: demands an open descriptor that nobody else owns: the kernel made it for the request, whose
    // completion is taken from the kernel once and handed either to `duplicate` or to `dispatch`, not to
    // both.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
