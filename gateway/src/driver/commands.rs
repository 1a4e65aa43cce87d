//! What other threads have to say to a shard: orders of the control plane, and what the files thread and the compactor have done.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use ring::ListenerId;

use super::{Driver, segments};
use crate::files::Command;
use crate::shard::{Event, Listener};
use crate::upgrade::passenger;
use crate::upgrade::wire;

impl Driver {
    pub(super) fn take_commands(&mut self, events: &mut Vec<Event>) {
        while let Some(command) = self.inbox.take() {
            match command {
                Command::Drain => events.push(Event::Drain),
                Command::HoldBackground(held) => {
                    self.shard.hold_background(held);
                    if held {
                        // All that was begun has to end, and zeros take long.
                        let logs = self.shard.log_configs();
                        logs.iter().for_each(|config| self.hurry_zeros(config.number));
                    }
                }
                Command::Pause => events.push(Event::Pause),
                Command::Resume => events.push(Event::Resume),
                Command::Describe { stream, told } => {
                    // Nobody may wait for it any more.
                    let _ = told.send(self.describe(&stream));
                }
                Command::Listeners(told) => {
                    let duplicate = |(id, kind): &(ListenerId, Listener)| {
                        Some((*kind, self.ring.duplicate_listener(*id).ok()?))
                    };
                    let open = self.listeners.iter().filter(|_| self.listens);
                    let _ = told.send(open.filter_map(duplicate).collect());
                }
                Command::DurableEnds(told) => drop(told.send(self.shard.durable_ends())),
                Command::Leave => self.leaving = true,
                Command::Keys(verifier) => events.push(Event::Keys(verifier)),
                Command::Revoke { revocation, closed } => {
                    self.revoking.push_back(closed);
                    events.push(Event::Revoke(revocation));
                }
                Command::Erase { ask, answer } => {
                    self.erasing.push_back(answer);
                    events.push(Event::Erase(ask));
                }
                Command::Found(answer) => events.push(Event::Found(answer)),
                Command::IndexDamaged { log, base } => events.push(Event::IndexDamaged { log, base }),
                done => events.push(self.end_background(done)),
            }
        }
    }

    /// What was begun behind the sessions has ended.
    fn end_background(&mut self, done: Command) -> Event {
        self.background -= 1;
        match done {
            Command::Segment { log, base, file } => {
                let made = file.map(|file| {
                    self.segments.insert((log, base), segments::add(&mut self.ring, file));
                });
                Event::SegmentPrepared { log, made }
            }
            Command::Zeroed { log } => Event::SegmentZeroed { log },
            Command::Indexed { log, base, made } => {
                let sealed = made.map(|(sealed, file)| {
                    let segment = self.segments.get_mut(&(log, base)).expect("a sealed segment stays");
                    segment.index = Some(self.ring.add_file(file));
                    sealed
                });
                Event::IndexWritten { log, sealed }
            }
            Command::Compacted { log, base, made } => {
                Event::Compacted { log, base, compacted: self.take_compacted(log, made) }
            }
            Command::Released { log } => Event::Released { log },
            Command::Rebuilt { log, base, made } => {
                let sealed = made.map(|(sealed, file)| {
                    self.replace_index(log, base, file);
                    sealed
                });
                Event::IndexRebuilt { log, base, sealed }
            }
            Command::Pushed(pushed) => Event::Pushed(pushed),
            _ => unreachable!("the caller takes all others"),
        }
    }

    /// Tells another process of all connections, with their descriptors, as many at a time as one message takes: it says when it has
    /// them, so that few are open here. How many there are.
    pub(super) fn describe(&mut self, stream: &UnixStream) -> std::io::Result<usize> {
        let (travellers, mut count) = (self.shard.travellers(), 0);
        for some in travellers.chunks(wire::DESCRIPTORS_MAX) {
            let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
            for (id, socket) in some {
                if let Some(passenger) = self.shard.describe(*id) {
                    passenger::write(&passenger, &mut bytes);
                    descriptors.push(self.ring.duplicate(*socket)?);
                }
            }
            if descriptors.is_empty() {
                continue;
            }
            count += descriptors.len();
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            wire::send(stream, &bytes, &borrowed)?;
            wire::receive(stream)?;
        }
        // The end, and what is to be known of the shard itself.
        wire::send(stream, &[u8::from(self.shard.users().knows_absent())], &[])?;
        Ok(count)
    }
}
