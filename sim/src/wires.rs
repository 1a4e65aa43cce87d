//! What the shards want done and what the clients do: every action of a shard turned into something that happens later,
//! cut, delayed or refused as the dice have it.

use gateway::shard::{Action, ConnectionId, Event, Listener, ReceiveEnd};
use protocol::event::CloseCode;
use ring::{RecvBuffer, Socket};
use router::ShardId;
use router::conversation::ReadPlace;
use router::mail::Clock;
use storage_log::{NotMade, RebuildJob};

use crate::client::Pass;
use crate::world::{BUSY_MICROS, Item, World};

/// How long tokens are good at least when it is calm, in seconds.
const CALM_TOKEN_SECONDS: u64 = 10;

/// How long the token of one that does not read is good, in seconds.
const DAY_SECONDS: u64 = 86_400;

impl World {
    pub(crate) fn execute(&mut self, shard: usize, action: Action) {
        let here = ShardId(shard as u16);
        let run = self.run;
        match action {
            Action::Admit { .. } | Action::CloseListeners | Action::Recycle(_) | Action::Revoked { .. } => {}
            Action::Pause => self.pause(here),
            Action::Unpause { .. } => {}
            Action::Search(ask) => {
                let (now, calm) = (self.unix().0, self.is_calm());
                let (answer, delay) = self.oracle.searches.index.answer(&ask, now, calm);
                self.event(shard, delay, Event::Found(answer));
            }
            Action::Push(batch) => self.push(shard, batch),
            Action::Erased(left) => self.note_erased(&left),
            Action::Close(connection, socket) => {
                self.net.remove(here, socket.index());
                let delay = self.rng.between(1, 50);
                self.event(shard, delay, Event::Closed(connection));
            }
            Action::Doorbell(target) => {
                let delay = self.rng.between(1, 40);
                self.ask_turn(target.index(), delay);
            }
            Action::Receive { connection, socket, once } => {
                let pipe = self.net.pipe_of(here, socket.index());
                let earlier = self.net.pipes[pipe].armed.replace((connection, once));
                assert!(earlier.is_none(), "one receive is armed at a time");
                self.net.pipes[pipe].shard = here;
                self.later(1, Item::Pump { run, pipe });
            }
            Action::Send(connection, socket, bytes) => self.send(here, connection, socket, bytes),
            Action::SendSocket { connection, socket, target, migration } => {
                let pipe = self.net.pipe_of(here, socket.index());
                assert!(self.net.pipes[pipe].armed.is_none(), "nothing is armed while a descriptor moves");
                let (there, back) = (self.rng.between(1, 300), self.rng.between(1, 300));
                let installed = !self.rng.one_in(20);
                self.net.pipes[pipe].broken |= !installed;
                self.revoke_moving(pipe);
                if installed {
                    let socket = Socket::from_index(self.net.install(target, pipe));
                    self.event(target.index(), there, Event::Adopted { migration, socket });
                }
                self.event(shard, back, Event::SocketSent { connection, installed });
            }
            Action::Shutdown(connection, socket) => self.shutdown(here, connection, socket),
            of_a_log => self.execute_of_log(shard, of_a_log),
        }
    }

    fn execute_of_log(&mut self, shard: usize, action: Action) {
        let run = self.run;
        match action {
            Action::PrepareSegment { log, base } => {
                // In some worlds the disk is full for a while: whoever makes segments is asked again.
                let now = self.now;
                let is_full = self.filling.as_mut().is_some_and(|rng| now < BUSY_MICROS && !rng.one_in(3));
                self.full += u32::from(is_full);
                if !is_full {
                    self.disk.create(log, base);
                }
                let made = if is_full { Err(NotMade::NoRoom) } else { Ok(()) };
                self.event(shard, 1_000, Event::SegmentPrepared { log, made });
            }
            Action::ZeroSegment { log, base } => {
                self.disk.zero(log, base);
                let delay = self.rng.between(1_000, 50_000);
                self.event(shard, delay, Event::SegmentZeroed { log });
            }
            Action::HurryZeros { .. } => {}
            Action::WriteIndex { log, job } => {
                let sealed = Some(self.disk.write_index(log, &job));
                let delay = self.rng.between(1_000, 200_000);
                self.event(shard, delay, Event::IndexWritten { log, sealed });
            }
            Action::Compact { log, job, erased } => {
                let is_awaited =
                    self.waits_for(|event| matches!(event, Event::Released { log: of } if *of == log));
                assert!(!is_awaited, "kept_as_set: what was given up of log {log} has not made room yet");
                let delay = self.rng.between(1_000, 400_000);
                self.later(delay, Item::Compact { run, log, shard, job, erased });
            }
            Action::Release { log, base } => {
                self.disk.release(log, base);
                // It waits for what is written anew for other logs.
                let delay = if self.rng.one_in(8) { 4_000_000 } else { self.rng.between(100, 20_000) };
                self.event(shard, delay, Event::Released { log });
            }
            Action::Quarantine { .. } => unreachable!("no record rots here"),
            Action::RebuildIndex { job } => self.rebuild_index(shard, &job),
            Action::Discard(postings) => drop(postings),
            Action::Read { log, job, place, what } => {
                let bytes = match what {
                    ReadPlace::Records(location) => self.disk.read(log, location),
                    ReadPlace::Index(block) => {
                        self.index_reads += 1;
                        if self.now < BUSY_MICROS && self.rng.one_in(200) {
                            self.disk.rot_index(log, block.base, &mut self.rng);
                            self.oracle.has_rotted = true;
                        }
                        self.disk.read_index(log, block)
                    }
                };
                let delay = self.rng.between(50, 3_000);
                self.event(shard, delay, Event::Read { log, job, place, bytes });
            }
            Action::Write { log, batch } => {
                self.disk.begin_write(log, batch);
                let delay = self.rng.between(100, 4_000);
                self.later(delay, Item::WriteDone { run, log, shard });
            }
            _ => unreachable!("all others are executed above"),
        }
    }

    /// Nothing that waits at a shard goes on: no receive, and no send for which there was no room.
    fn pause(&mut self, here: ShardId) {
        for (armed, blocked) in self.net.cancel(here) {
            if let Some((connection, _)) = armed {
                let delay = self.rng.between(1, 40);
                let end = ReceiveEnd::Disarmed;
                self.event(here.index(), delay, Event::ReceiveEnded { connection, end });
            }
            if let Some((connection, bytes)) = blocked {
                let delay = self.rng.between(1, 40);
                self.event(here.index(), delay, Event::Sent { connection, bytes, sent: Some(0) });
            }
        }
    }

    /// Makes an index file again, or fails to.
    fn rebuild_index(&mut self, shard: usize, job: &RebuildJob) {
        let (log, base) = (job.config().number, job.base());
        let fails = self.now < BUSY_MICROS && self.rng.one_in(8);
        let sealed = (!fails).then(|| self.disk.rebuild_index(job)).flatten();
        self.rebuilds += u32::from(sealed.is_some());
        let delay = self.rng.between(1_000, 2_000_000);
        self.event(shard, delay, Event::IndexRebuilt { log, base, sealed });
    }

    fn shutdown(&mut self, here: ShardId, connection: ConnectionId, socket: Socket) {
        let pipe = self.net.pipe_of(here, socket.index());
        let state = &mut self.net.pipes[pipe];
        state.server_ended = true;
        let armed = state.armed.take();
        let blocked = state.blocked.take();
        let client = state.client;
        if let Some((connection, _)) = armed {
            self.event(here.index(), 2, Event::ReceiveEnded { connection, end: ReceiveEnd::Gone });
        }
        if let Some((connection, bytes)) = blocked {
            self.event(here.index(), 2, Event::Sent { connection, bytes, sent: None });
        }
        let delay = self.rng.between(1, 20);
        self.event(here.index(), delay, Event::ShutDown(connection));
        self.later(delay, Item::ReadClient(client));
    }

    fn send(&mut self, here: ShardId, connection: ConnectionId, socket: Socket, bytes: bytes::Bytes) {
        let pipe = self.net.pipe_of(here, socket.index());
        let short = self.rng.one_in(10);
        let cut = self.rng.between(1, bytes.len() as u64 + 1) as usize;
        let state = &mut self.net.pipes[pipe];
        let room = state.room().min(if short { cut } else { usize::MAX });
        if state.client_ended || state.server_ended {
            return self.event(here.index(), 1, Event::Sent { connection, bytes, sent: None });
        }
        if room == 0 {
            state.blocked = Some((connection, bytes));
            return;
        }
        let sent = room.min(bytes.len());
        state.to_client.extend(&bytes[..sent]);
        let client = state.client;
        for byte in &bytes[..sent] {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let (back, there) = (self.rng.between(1, 100), self.rng.between(10, 500));
        self.event(here.index(), back, Event::Sent { connection, bytes, sent: Some(sent) });
        self.later(there, Item::ReadClient(client));
    }

    /// Gives the server what a client wrote, in pieces, if it has asked.
    pub(crate) fn pump(&mut self, pipe: usize) {
        let run = self.run;
        let state = &mut self.net.pipes[pipe];
        let shard = state.shard.index();
        let Some((connection, once)) = state.armed else {
            return;
        };
        if state.to_server.is_empty() {
            if state.client_ended || state.server_ended {
                state.armed = None;
                self.event(shard, 1, Event::ReceiveEnded { connection, end: ReceiveEnd::Gone });
            }
            return;
        }
        let most = state.to_server.len().min(2_048) as u64;
        let length = if self.rng.one_in(3) { self.rng.between(1, most + 1) } else { most };
        let state = &mut self.net.pipes[pipe];
        let bytes: Vec<u8> = state.to_server.drain(..length as usize).collect();
        // A multishot receive ends now and then, as it does when the completion queue is full.
        let armed = !once && !self.rng.one_in(10);
        let state = &mut self.net.pipes[pipe];
        if !armed {
            state.armed = None;
        }
        let buffer = RecvBuffer::from_vec(bytes);
        self.arrived[shard].push(Event::Received { connection, buffer, armed });
        let delay = self.rng.below(30);
        self.ask_turn(shard, delay);
        self.later(delay + 1, Item::Pump { run, pipe });
    }

    pub(crate) fn act(&mut self, index: usize) {
        if self.is_deaf(index) {
            return self.act_deaf(index);
        }
        let calm = self.is_calm();
        let (now, unix) = (self.now, self.unix());
        let seconds = match &self.clients[index].link {
            // When it is calm a session lives as long as what it asks for may take: one whose commands are looked for in the log, behind hundreds of those
            // that it sent before, would end before each answer, and send them all again.
            None if calm => Some(self.clients[index].token_seconds.max(CALM_TOKEN_SECONDS)),
            None => Some(self.clients[index].token_seconds),
            Some(_) => (!calm && self.rng.one_in(30)).then(|| self.rng.between(1, 4)),
        };
        let pass = seconds.map(|seconds| self.pass(index, seconds));
        let (is_away, takes_connections) = (self.is_away(index), self.takes_connections());
        let client = &mut self.clients[index];
        match &client.link {
            None if takes_connections && !is_away => {
                self.connect(index, pass.expect("one to come with"));
            }
            None => {}
            Some(_) if !calm && self.rng.one_in(40) && !client.waits() => return self.cut(index),
            Some(_) if !calm && self.rng.one_in(60) && !client.waits() => client.leave_link(),
            Some(_) if !calm && self.rng.one_in(25) => {
                client.stalled_until = now + self.rng.between(50_000, 800_000);
            }
            Some(_) if let Some(pass) = pass => client.refresh(pass),
            Some(_) => {
                let clock = Clock { unix, micros: now };
                client.act(&mut self.rng, &self.users, &mut self.oracle, clock, calm);
            }
        }
        self.write_client(index);
        self.check_answered(index);
        let delay = if calm { 50_000 } else { self.rng.between(500, 40_000) };
        self.later(delay, Item::Act(index));
    }

    /// Who comes while shards stand still waits in the listener's backlog, which is as if it came later.
    fn takes_connections(&self) -> bool {
        self.node.is_some() && self.draining_since.is_none() && !self.stands_still()
    }

    fn connect(&mut self, index: usize, pass: Pass) {
        let shard = ShardId(self.rng.below(u64::from(self.places.shards)) as u16);
        let (pipe, socket) = self.net.open(index, shard);
        let begun = (self.oracle.since(), self.oracle.seen.run);
        // It has what stands before the cursor that it comes with.
        self.clients[index].acknowledge(&mut self.oracle);
        self.clients[index].connect(pipe, pass, begun, &mut self.rng);
        let (socket, peer) = (Socket::from_index(socket), ([127, 0, 0, 1], 1).into());
        self.event(shard.index(), 1, Event::Accepted { listener: Listener::Chat, socket, peer });
    }

    /// A client goes without a word and is back at once; one that forgets is a device that was set up anew.
    pub(crate) fn come_anew(&mut self, index: usize, forgets: bool) {
        if self.is_deaf(index) || self.is_away(index) || !self.takes_connections() {
            return;
        }
        self.end_client(index);
        if forgets {
            self.clients[index].forget();
        }
        let pass = self.pass(index, self.clients[index].token_seconds.max(CALM_TOKEN_SECONDS));
        self.connect(index, pass);
        self.write_client(index);
    }

    /// A client asks for more than is made at once.
    pub(crate) fn ask_much(&mut self, index: usize) {
        if !self.is_deaf(index) {
            self.clients[index].ask_much(&mut self.rng, &self.oracle);
            self.write_client(index);
        }
    }

    /// Who does not read does not read why it was closed either, and comes back.
    fn act_deaf(&mut self, index: usize) {
        let link = self.clients[index].link.as_ref();
        let is_out = link.is_none_or(|link| self.net.pipes[link.pipe].server_ended);
        if is_out && self.takes_connections() {
            let pass = self.pass(index, DAY_SECONDS);
            self.connect(index, pass);
        }
        self.write_client(index);
        self.later(50_000, Item::Act(index));
    }

    /// The client goes without a word.
    fn cut(&mut self, index: usize) {
        self.end_client(index);
        self.stay_away(index);
        let delay = self.rng.between(1_000, 300_000);
        self.later(delay, Item::Act(index));
    }

    pub(crate) fn end_client(&mut self, index: usize) {
        let Some(link) = &self.clients[index].link else {
            return;
        };
        let pipe = link.pipe;
        self.clients[index].lose_link();
        self.end_pipe(pipe);
    }

    fn end_pipe(&mut self, pipe: usize) {
        let run = self.run;
        let state = &mut self.net.pipes[pipe];
        state.client_ended = true;
        state.to_client.clear();
        let (shard, blocked) = (state.shard.index(), state.blocked.take());
        if let Some((connection, bytes)) = blocked
            && self.node.is_some()
        {
            self.event(shard, 5, Event::Sent { connection, bytes, sent: None });
        }
        self.later(10, Item::Pump { run, pipe });
    }

    fn write_client(&mut self, index: usize) {
        let output = self.clients[index].take_output();
        let run = self.run;
        if let Some(link) = &self.clients[index].link
            && !output.is_empty()
        {
            let pipe = link.pipe;
            self.net.pipes[pipe].to_server.extend(output);
            let delay = self.rng.between(10, 500);
            self.later(delay, Item::Pump { run, pipe });
        }
    }

    pub(crate) fn read_client(&mut self, index: usize) {
        if self.is_deaf(index) {
            return;
        }
        let (now, unix) = (self.now, self.unix());
        if !self.is_calm() && self.clients[index].stalled_until > now {
            let delay = self.clients[index].stalled_until - now;
            return self.later(delay, Item::ReadClient(index));
        }
        self.read_older(index);
        let Some(link) = &self.clients[index].link else {
            return;
        };
        let pipe = link.pipe;
        let (mut bytes, ended, blocked) = self.net.take(pipe);
        let goes_on = self.clients[index].handle_bytes(&mut bytes, &mut self.oracle, unix, now);
        if let Some((connection, bytes)) = blocked {
            let shard = self.net.pipes[pipe].shard;
            self.send_blocked(shard, pipe, connection, bytes);
        }
        self.write_client(index);
        self.upgrades.cut += u32::from(goes_on && ended && self.net.pipes[pipe].left);
        if !goes_on || ended {
            self.end_client(index);
        }
    }

    /// What was left open ends with the close frame that says why, unless the node itself has ended.
    fn read_older(&mut self, index: usize) {
        for place in (0..self.clients[index].older.len()).rev() {
            let pipe = self.clients[index].older[place].pipe;
            let (mut bytes, ended, blocked) = self.net.take(pipe);
            let closed = self.clients[index].handle_older(place, &mut bytes);
            if let Some((connection, bytes)) = blocked {
                let shard = self.net.pipes[pipe].shard;
                self.send_blocked(shard, pipe, connection, bytes);
            }
            if let Some((code, answer)) = &closed {
                assert!(
                    matches!(
                        *code,
                        CloseCode::REPLACED
                            | CloseCode::DRAIN
                            | CloseCode::EXPIRED
                            | CloseCode::REVOKED
                            | CloseCode::OVERLOAD
                    ) || (*code == CloseCode::STALLED && self.oracle.keep_ms.is_some()),
                    "left open and closed with {code:?}"
                );
                self.replaced += u32::from(*code == CloseCode::REPLACED);
                self.net.pipes[pipe].to_server.extend(answer);
            }
            let broken = self.net.pipes[pipe].broken || self.net.pipes[pipe].left;
            self.upgrades.cut += u32::from(closed.is_none() && ended && self.net.pipes[pipe].left);
            assert!(closed.is_some() || !ended || broken, "a replaced connection is told so");
            if closed.is_some() || ended {
                self.clients[index].older.remove(place);
                self.end_pipe(pipe);
            }
        }
    }

    fn send_blocked(&mut self, shard: ShardId, pipe: usize, connection: ConnectionId, bytes: bytes::Bytes) {
        let state = &mut self.net.pipes[pipe];
        let sent = state.room().min(bytes.len());
        state.to_client.extend(&bytes[..sent]);
        let client = state.client;
        self.event(shard.index(), 3, Event::Sent { connection, bytes, sent: Some(sent) });
        self.later(20, Item::ReadClient(client));
    }
}
