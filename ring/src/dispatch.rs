//! From what the kernel wrote to what the caller reads.
//!
//! The order matters once: a completion that names a receive buffer takes it out of the pool before anything
//! else is looked at, because a buffer id that is not taken back is lost.

use std::net::{Ipv4Addr, SocketAddr};

use io_uring::cqueue;

use crate::buffers::RecvBuffer;
use crate::operation::{Half, Kind, Mode, Operation};
use crate::ring::Arrival;
use crate::sockets::own_installed;
use crate::{Completion, Errno, FileBuffer, Received, Ring, Socket, Token};

impl Ring {
    /// Handles one completion. The only place that takes operations out of `in_flight`.
    pub(crate) fn dispatch(&mut self, arrival: Arrival, completions: &mut Vec<Completion>) {
        let Arrival { user_data, result, flags } = arrival;
        let buffer = cqueue::buffer_select(flags);
        let buffer = buffer.map(|id| self.pool.take(id, usize::try_from(result).unwrap_or(0)));
        let (kind, value) = Kind::split(user_data);
        match kind {
            Kind::Accept => self.handle_accept(value, result, completions),
            Kind::Adopted => self.handle_adopted(value, result, completions),
            Kind::Cancel => (),
            Kind::Close => {
                let result = Errno::split(result).map(drop);
                completions.push(Completion::Closed { token: Token::new(value), result });
            }
            Kind::Doorbell => completions.push(Completion::Doorbell),
            Kind::DoorbellFailed => self.counters.doorbells_failed += 1,
            Kind::File => completions.push(self.handle_file(value, result)),
            // `duplicate` gave up on it.
            Kind::Install => drop(Errno::split(result).map(own_installed)),
            Kind::LinkedSync => completions.extend(self.handle_half(value, Half::Sync(result))),
            Kind::LinkedWrite => completions.extend(self.handle_half(value, Half::Write(result))),
            Kind::Receive => {
                let socket = Socket(value as u32);
                completions.extend(self.handle_receive(socket, result, buffer, cqueue::more(flags)));
            }
            Kind::Send => completions.push(self.handle_send(value, result)),
            Kind::ShutDown => completions.push(Completion::ShutDown { token: Token::new(value) }),
            Kind::SocketSent => {
                // On success the result is the slot in the target's table, which is its business.
                let result = Errno::split(result).map(drop);
                completions.push(Completion::SocketSent { token: Token::new(value), result });
            }
            Kind::Wake => self.handle_wake(value, completions),
        }
    }

    fn handle_accept(&mut self, slot: u64, result: i32, completions: &mut Vec<Completion>) {
        let operation = self.in_flight.remove(slot);
        let Operation::Accept { listener, address } = operation else { unreachable!("the kind says accept") };
        let address = address.take();
        let accepted = Errno::split(result).map(|index| {
            let socket = Socket(index);
            self.receives.open(socket);
            let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            (socket, address.socket_addr().unwrap_or(unknown))
        });
        if let Err(errno) = accepted
            && !passes(errno)
            && !errno.is_of_one_connection()
            && self.listeners.is_accepting(listener)
        {
            self.listeners.pause(listener);
        }
        match accepted {
            Ok(_) => self.listeners.accepted(listener),
            Err(errno) if errno.is_out_of_something() => self.listeners.ran_out(listener),
            Err(_) => (),
        }
        let goes_on = self.listeners.is_accepting(listener) && !self.closing;
        self.listeners.accept_ended(listener, slot as u32);
        if goes_on {
            self.post_accepts(listener);
        }
        if accepted != Err(Errno::CANCELLED) {
            completions.push(Completion::Accepted { listener, result: accepted });
        }
    }

    fn handle_adopted(&mut self, tag: u64, result: i32, completions: &mut Vec<Completion>) {
        let index = Errno::split(result).expect("the kernel posts the slot it installed");
        let socket = Socket(index);
        self.receives.open(socket);
        completions.push(Completion::Adopted { tag, socket });
    }

    fn handle_file(&mut self, slot: u64, result: i32) -> Completion {
        let result = Errno::split(result);
        match self.in_flight.remove(slot) {
            Operation::Read { token, file, mut buffer } => {
                self.files.end(file);
                buffer.truncate(result.unwrap_or(0) as usize);
                Completion::Read { token, buffer, result: result.map(drop) }
            }
            Operation::Sync { token, file } => {
                self.files.end(file);
                Completion::Synced { token, result: result.map(drop) }
            }
            Operation::Write { token, file, buffer } => {
                self.files.end(file);
                let result = whole(result, &buffer);
                Completion::Written { token, buffer, result }
            }
            Operation::Accept { .. }
            | Operation::Send { .. }
            | Operation::Wake { .. }
            | Operation::WriteAndSync { .. } => unreachable!("the kind says file"),
        }
    }

    /// The two halves of a write and sync may complete in either order, when the first of them fails.
    fn handle_half(&mut self, slot: u64, half: Half) -> Option<Completion> {
        let operation = self.in_flight.get_mut(slot);
        let Operation::WriteAndSync { first, .. } = operation else { unreachable!("the kind says linked") };
        let (write, sync) = match (first.replace(half), half) {
            (None, _) => return None,
            (Some(Half::Write(write)), Half::Sync(sync)) | (Some(Half::Sync(sync)), Half::Write(write)) => {
                (write, sync)
            }
            _ => unreachable!("each half completes once"),
        };
        let operation = self.in_flight.remove(slot);
        let Operation::WriteAndSync { token, file, buffer, .. } = operation else {
            unreachable!("it was one above");
        };
        self.files.end(file);
        // The write's error is the cause; the sync's would only say that it was cancelled.
        let written = whole(Errno::split(write), &buffer);
        let result = written.and_then(|()| Errno::split(sync).map(drop));
        Some(Completion::Written { token, buffer, result })
    }

    fn handle_receive(
        &mut self,
        socket: Socket,
        result: i32,
        buffer: Option<RecvBuffer>,
        armed: bool,
    ) -> Option<Completion> {
        let (token, mode) = self.receives.get(socket);
        if result == -libc::ENOBUFS && !armed {
            self.give_back(buffer);
            if self.receives.park(socket) {
                self.counters.recv_starved += 1;
                return None;
            }
            return Some(Completion::Received { token, result: Received::End });
        }
        if !armed {
            self.receives.end(socket);
        }
        let result = match (Errno::split(result), buffer) {
            (Ok(1..), Some(buffer)) => {
                if mode == Mode::Multishot && !armed {
                    self.counters.recv_disarmed += 1;
                }
                Received::Data { buffer, armed }
            }
            (Ok(_), buffer) => {
                self.give_back(buffer);
                Received::End
            }
            (Err(errno), buffer) => {
                self.give_back(buffer);
                if passes(errno) { Received::Disarmed } else { Received::Failed(errno) }
            }
        };
        Some(Completion::Received { token, result })
    }

    fn handle_send(&mut self, slot: u64, result: i32) -> Completion {
        let operation = self.in_flight.remove(slot);
        let Operation::Send { token, bytes } = operation else { unreachable!("the kind says send") };
        let result = Errno::split(result).map(|sent| sent as usize);
        Completion::Sent { token, bytes, result }
    }

    fn handle_wake(&mut self, slot: u64, completions: &mut Vec<Completion>) {
        let operation = self.in_flight.remove(slot);
        let Operation::Wake { count } = operation else { unreachable!("the kind says wake") };
        if count.take() > 0 {
            completions.push(Completion::Woken);
        }
        if !self.closing {
            self.post_wake();
        }
    }

    fn give_back(&mut self, buffer: Option<RecvBuffer>) {
        if let Some(buffer) = buffer {
            self.pool.recycle(buffer);
        }
    }
}

/// `Ok` if every byte of the buffer was written.
fn whole(written: Result<u32, Errno>, buffer: &FileBuffer) -> Result<(), Errno> {
    match written {
        Ok(written) if written as usize == buffer.bytes().len() => Ok(()),
        Ok(_) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}

/// Errors that say nothing about the socket or listener itself: trying again can succeed.
fn passes(errno: Errno) -> bool {
    matches!(
        errno.code(),
        libc::ECANCELED
            | libc::EAGAIN
            | libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENFILE
            | libc::EMFILE
            | libc::ENOMEM
            | libc::ENOBUFS
    )
}
