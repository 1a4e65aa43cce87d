//! From a command to every member's send: the router, the log and the outboxes of one shard, without ring and disk.

#![forbid(unsafe_code)]

use std::sync::Arc;

use benches::Room;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway::mailbox::{Back, Mailboxes, Mesh, deliver_places};
use protocol::command::HistoryRange;
use protocol::ids::{RequestId, Seq, UnixMillis, UserId};
use protocol::upgrade::Form;
use router::ShardId;
use router::mail::{Asker, Deliver, Reply, Request, SessionId};

/// One message of 128 bytes to a group of which so many sessions are live, to the last send: per delivery.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for sessions in [1, 10, 99] {
        for form in [Form::Json, Form::Binary] {
            let mut room = Room::new(sessions, form);
            group.throughput(Throughput::Elements(sessions as u64));
            group.bench_function(format!("{sessions}_{}", form.subprotocol()), |b| b.iter(|| room.send(128)));
        }
    }
}

/// A delivery to another shard and out of its ring, on one core.
fn mailbox_hop(c: &mut Criterion) {
    let mesh = Mesh::new(2, deliver_places(2));
    let mut source = Mailboxes::new(mesh.clone(), ShardId(0));
    let target = Mailboxes::new(mesh, ShardId(1));
    let users: Arc<[UserId]> = Arc::from(vec![UserId::new("bob").expect("a name")]);
    let record = Bytes::from(vec![1; 256]);
    c.bench_function("mailbox_hop", |b| {
        b.iter(|| {
            let (record, users) = (record.clone(), users.clone());
            let deliver = Deliver { log: 0, position: 1, record, users, asked_micros: 0 };
            source.reply(ShardId(1), Back::Reply(Reply::Deliver(deliver)));
            target.take_reply(ShardId(0)).is_some()
        });
    });
}

/// A device that has everything comes back; one that missed 100 messages does, page by page from what is in memory, rendered
/// and sent; and the conversation's side of a page of 50 of them.
fn catch_up_page(c: &mut Criterion) {
    let mut room = Room::new(2, Form::Json);
    let user = UserId::new("user-1").expect("a name");
    let behind = room.cursor_of(&user);
    (0..100).for_each(|_| room.send(128));
    let at_head = room.cursor_of(&user);
    let mut group = c.benchmark_group("catch_up");
    for (name, cursor, missed) in [("reconnect_at_head", at_head, 0), ("reconnect_100_behind", behind, 100)] {
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(room.come_back(&user, Some(cursor.clone())), missed, "all of it, once"));
        });
    }
    let (group_id, asker) = (room.group, asker());
    group.bench_function("history_page_of_50", |b| {
        b.iter(|| {
            let (user, range) = (user.clone(), HistoryRange::Latest);
            let request = Request::History { asker, user, conversation: group_id, range, limit: 50 };
            room.side.handle_request(request, UnixMillis(1), &mut room.log);
            let Some((_, Reply::History { records, .. })) = room.side.poll_output() else {
                unreachable!("all of it is in memory");
            };
            assert_eq!(records.len(), 50);
        });
    });
}

/// The conversation's side of a page of 50 messages, of which none, none but others in the conversation, and half were edited;
/// everything in memory.
fn amended_page(c: &mut Criterion) {
    const MESSAGES: u64 = 100;
    const PAGE: u64 = 50;
    // Behind the creation of the group.
    let (first, behind) = (2, 2 + MESSAGES);
    let in_page = behind - PAGE..behind;
    let mut group = c.benchmark_group("amended_page_of_50");
    for (name, edited) in [("none", first..first), ("others", first..in_page.start), ("half", in_page)] {
        let mut room = Room::new(2, Form::Json);
        (0..MESSAGES).for_each(|_| room.send(128));
        edited.step_by(2).for_each(|seq| room.edit(Seq(seq), 128));
        let (user, conversation, asker) = (UserId::new("user-1").expect("a name"), room.group, asker());
        group.bench_function(name, |b| {
            b.iter(|| {
                let (user, range) = (user.clone(), HistoryRange::Before(Seq(behind)));
                let request = Request::History { asker, user, conversation, range, limit: PAGE as u32 };
                room.side.handle_request(request, UnixMillis(1), &mut room.log);
                let Some((_, Reply::History { records, .. })) = room.side.poll_output() else {
                    unreachable!("all of it is in memory");
                };
                assert_eq!(records.len(), PAGE as usize);
            });
        });
    }
}

fn asker() -> Asker {
    let session = SessionId { slot: 0, generation: 0 };
    Asker { shard: ShardId(0), session, id: RequestId(1), asked_micros: 0 }
}

criterion_group!(benches, fan_out, mailbox_hop, catch_up_page, amended_page);
criterion_main!(benches);
