//! Listening sockets and the accepts that are posted on them.
//!
//! Invariant: a listener's descriptor is open while any accept is posted on it.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use crate::ListenerId;

/// Whether a listener takes connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Accepting,
    Paused,
    /// Goes away with its last posted accept.
    Closing,
}

struct Listener {
    socket: TcpListener,
    /// The posted accepts, by their slots in `InFlight`.
    posted: Vec<u32>,
    mode: Mode,
    /// Connections that may still come; `None` is no limit.
    room: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Listeners {
    listeners: Vec<Option<Listener>>,
}

impl Listeners {
    pub(crate) fn insert(&mut self, socket: TcpListener, room: Option<u32>) -> ListenerId {
        let listener = Some(Listener { socket, posted: Vec::new(), mode: Mode::Accepting, room });
        let vacant = self.listeners.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.listeners.len());
        match vacant {
            Some(index) => self.listeners[index] = listener,
            None => self.listeners.push(listener),
        }
        ListenerId(index as u32)
    }

    pub(crate) fn fd(&self, id: ListenerId) -> RawFd {
        self.get(id).socket.as_raw_fd()
    }

    /// The accepts posted now.
    pub(crate) fn posted(&self, id: ListenerId) -> &[u32] {
        &self.get(id).posted
    }

    /// How many accepts may be posted at a time, of at most `accepts`.
    pub(crate) fn postable(&self, id: ListenerId, accepts: u32) -> usize {
        self.get(id).room.map_or(accepts, |room| room.min(accepts)) as usize
    }

    /// So many more connections may come.
    pub(crate) fn set_room(&mut self, id: ListenerId, room: u32) {
        self.get_mut(id).room = Some(room);
    }

    /// A connection came.
    pub(crate) fn accepted(&mut self, id: ListenerId) {
        if let Some(room) = &mut self.get_mut(id).room {
            *room = room.saturating_sub(1);
        }
    }

    /// The system had nothing left for a connection: none is taken until there is room again, where room is given.
    pub(crate) fn ran_out(&mut self, id: ListenerId) {
        if let Some(room) = &mut self.get_mut(id).room {
            *room = 0;
        }
    }

    /// Whether accepts are to be posted.
    pub(crate) fn is_accepting(&self, id: ListenerId) -> bool {
        self.get(id).mode == Mode::Accepting
    }

    pub(crate) fn accept_posted(&mut self, id: ListenerId, slot: u32) {
        self.get_mut(id).posted.push(slot);
    }

    pub(crate) fn accept_ended(&mut self, id: ListenerId, slot: u32) {
        let posted = &mut self.get_mut(id).posted;
        let position = posted.iter().position(|posted| *posted == slot).expect("it was posted");
        posted.swap_remove(position);
        self.remove_if_over(id);
    }

    pub(crate) fn pause(&mut self, id: ListenerId) {
        self.get_mut(id).mode = Mode::Paused;
    }

    pub(crate) fn resume(&mut self, id: ListenerId) {
        self.get_mut(id).mode = Mode::Accepting;
    }

    pub(crate) fn close(&mut self, id: ListenerId) {
        self.get_mut(id).mode = Mode::Closing;
        self.remove_if_over(id);
    }

    /// Whether there has been none yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Another descriptor of the same listening socket.
    pub(crate) fn duplicate(&self, id: ListenerId) -> std::io::Result<TcpListener> {
        self.get(id).socket.try_clone()
    }

    /// Whether the listener is there and was not closed.
    pub(crate) fn is_open(&self, id: ListenerId) -> bool {
        let listener = self.listeners.get(id.0 as usize).and_then(Option::as_ref);
        listener.is_some_and(|listener| listener.mode != Mode::Closing)
    }

    fn remove_if_over(&mut self, id: ListenerId) {
        let listener = self.get(id);
        if listener.mode == Mode::Closing && listener.posted.is_empty() {
            self.listeners[id.0 as usize] = None;
        }
    }

    fn get(&self, id: ListenerId) -> &Listener {
        self.listeners[id.0 as usize].as_ref().expect("a listener is named only while it is open")
    }

    fn get_mut(&mut self, id: ListenerId) -> &mut Listener {
        self.listeners[id.0 as usize].as_mut().expect("a listener is named only while it is open")
    }
}
