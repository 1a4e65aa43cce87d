//! Reads the logs after a run: fresh sessions without a cursor, every conversation from sequence 1.
//!
//! A conversation is read by its first member, as a device that never was there before.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context, anyhow, bail};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use protocol::{
    command::{Command, Connect, HistoryPolicy, HistoryRange, Request},
    event::{AmendedForm, MemberEvent, MessageEvent, PageItem, Reaction, ServerFrame},
    ids::{ConversationId, DeviceId, RequestId, Seq, UserId},
    limits::HISTORY_ITEMS_MAX,
    session::Input,
    upgrade::Form,
};

use super::{Worker, say};
use crate::{
    client::{Connection, Incoming, dial},
    letter::Letter,
    link::FromWorker,
    plan::{Plan, RoomIndex, UserIndex},
    verify::{
        CommandId, FoldedForm, LoggedChange, LoggedChanges, NO_LETTER, Shown, ShownAmendment, command_id,
        emoji_number,
    },
};

/// Sessions at a time.
const READERS_MAX: usize = 16;
const READ_BYTES: usize = 64 * 1024;
/// A name that is of no user of the plan.
const NOBODY: UserIndex = UserIndex(u32::MAX);
/// Pages of one conversation, each of at least one item.
const PAGES_MAX: u32 = 1_000_000;

/// What one session reads: the rooms that its user is the first member of.
struct Task {
    user: UserIndex,
    rooms: Vec<(RoomIndex, ConversationId)>,
}

/// Reads every conversation whose first member is a user of this worker.
pub(super) async fn read_all(worker: &Rc<Worker>) -> anyhow::Result<()> {
    let tasks = worker.with(|state| {
        let desk = &state.desk;
        let own = state.users.iter().map(|user| {
            let is_first = |room: &RoomIndex| desk.plan.room(*room).maker() == user.index;
            let rooms = desk.plan.rooms_of(user.index).into_iter().filter(is_first);
            let named = rooms.filter_map(|room| Some((room, desk.rooms.id(room)?)));
            Task { user: user.index, rooms: named.collect() }
        });
        own.filter(|task| !task.rooms.is_empty()).collect::<Vec<_>>()
    });
    let tasks = Rc::new(RefCell::new(tasks));
    let readers: Vec<_> = (0..READERS_MAX)
        .map(|_| {
            let (worker, tasks) = (worker.clone(), tasks.clone());
            monoio::spawn(async move {
                loop {
                    let Some(task) = tasks.borrow_mut().pop() else { return anyhow::Ok(()) };
                    read_rooms(&worker, &task).await?;
                }
            })
        })
        .collect();
    for reader in readers {
        reader
            .await
            .context("what the node has stored could not be read after the run; does it run still?")?;
    }
    Ok(())
}

async fn read_rooms(worker: &Rc<Worker>, task: &Task) -> anyhow::Result<()> {
    let mut session = Session::open(worker, task.user).await?;
    let plan = worker.with(|state| state.desk.plan.clone());
    for (room, id) in &task.rooms {
        let Found { items, senders, shown, changes } = read_room(&mut session, *id, &plan).await?;
        let (room, conversation) = (*room, id.to_string());
        let from_join = plan.history(room) == HistoryPolicy::Joined;
        let changes = plan.is_changing(room).then_some(LoggedChanges { from_join, changes });
        say(&FromWorker::Log { room, conversation, items, senders, shown, changes })?;
        worker.with(|state| state.desk.is_heard = true);
    }
    session.close().await
}

/// What stands in one conversation.
#[derive(Default)]
struct Found {
    items: Vec<(u64, String)>,
    senders: Vec<(u64, UserIndex)>,
    shown: Shown,
    changes: Vec<LoggedChange>,
}

async fn read_room(
    session: &mut Session,
    conversation: ConversationId,
    plan: &Plan,
) -> anyhow::Result<Found> {
    let (mut found, mut after) = (Found::default(), Seq(0));
    for _ in 0..PAGES_MAX {
        let range = HistoryRange::After(after);
        let command = Command::History { conversation, range, limit: HISTORY_ITEMS_MAX };
        let ServerFrame::Page { messages, more, .. } = session.ask(command).await? else {
            bail!("history was answered with something else than a page");
        };
        let before = found.items.len();
        messages.iter().for_each(|item| note_forms(item, plan, &mut found.shown));
        found.changes.extend(messages.iter().filter_map(|item| match item {
            PageItem::Member(event) => Some(logged_change(event, plan)),
            PageItem::Amended(_) | PageItem::Gap(_) | PageItem::Message(_) => None,
        }));
        found.senders.extend(messages.iter().filter_map(|item| match item {
            PageItem::Message(event) => {
                Some((event.seq.0, plan.user_of_name(&event.sender).unwrap_or(NOBODY)))
            }
            PageItem::Amended(_) | PageItem::Gap(_) | PageItem::Member(_) => None,
        }));
        found.items.extend(messages.into_iter().filter_map(|item| match item {
            PageItem::Amended(event) => Some((event.seq.0, event.message_id.to_string())),
            PageItem::Gap(_) => None,
            PageItem::Member(event) => Some((event.seq.0, event.message_id.to_string())),
            PageItem::Message(event) => Some((event.seq.0, event.message_id.to_string())),
        }));
        if !more {
            return Ok(found);
        }
        let last = found.items.get(before..).and_then(<[_]>::last);
        after = Seq(last.context("a page with more to come was empty")?.0);
    }
    bail!("the history of {conversation} does not end")
}

fn logged_change(event: &MemberEvent, plan: &Plan) -> LoggedChange {
    let users = |names: &[UserId]| {
        let users = names.iter().map(|name| plan.user_of_name(name).unwrap_or(NOBODY));
        users.collect::<Vec<_>>()
    };
    LoggedChange { seq: event.seq.0, added: users(&event.added), removed: users(&event.removed) }
}

/// Notes what a page shows of amendments.
fn note_forms(item: &PageItem, plan: &Plan, shown: &mut Shown) {
    let user = |name: &UserId| plan.user_of_name(name).unwrap_or(NOBODY);
    let reactions = |reactions: &[Reaction]| {
        let each = reactions.iter().map(|reaction| {
            (emoji_number(&reaction.emoji), reaction.users.iter().map(user).collect::<Vec<_>>())
        });
        each.collect::<Vec<_>>()
    };
    match item {
        PageItem::Amended(event) => {
            let form = match &event.form {
                AmendedForm::Deleted => FoldedForm { deleted: true, ..FoldedForm::default() },
                AmendedForm::Hidden => FoldedForm::default(),
                AmendedForm::Shown { text, edited_at, reactions: all } => {
                    let (text, edited) = (text_of(text), edited_at.is_some());
                    FoldedForm { text, edited, deleted: false, reactions: reactions(all) }
                }
            };
            let (seq, target, by) = (event.seq.0, event.target.0, user(&event.by));
            shown.amendments.push(ShownAmendment { seq, target, by, form });
        }
        PageItem::Message(event) => {
            let MessageEvent { seq, deleted, .. } = *event;
            let (text, edited) = (text_of(&event.text), event.edited_at.is_some());
            let form = FoldedForm { text, edited, deleted, reactions: reactions(&event.reactions) };
            if form != FoldedForm::plain(command_id(event.message_id)) {
                shown.messages.insert(seq.0, form);
            }
        }
        PageItem::Gap(_) | PageItem::Member(_) => {}
    }
}

/// Whose letter a text is.
fn text_of(text: &str) -> Option<CommandId> {
    let letter = || Letter::read(text).map_or(NO_LETTER, |letter| command_id(letter.message_id));
    (!text.is_empty()).then(letter)
}

/// A session that asks one thing at a time.
pub(super) struct Session {
    connection: Connection,
    frames: Vec<ServerFrame>,
    next_request: u32,
}

impl Session {
    /// Of a device that was never there before.
    pub(super) async fn open(worker: &Rc<Worker>, user: UserIndex) -> anyhow::Result<Self> {
        let (plan, nonce) = worker.with(|state| {
            let nonce = u128::from(state.desk.random.next()) << 64 | u128::from(user.0);
            (state.desk.plan.clone(), nonce)
        });
        let connection = dial(&worker.endpoint, None, Form::Binary, nonce.to_be_bytes()).await?;
        let mut session = Self { connection, frames: Vec::new(), next_request: 1 };
        let connect = Connect {
            token: Some(worker.signer.sign(&plan.name(user))?),
            device: DeviceId::new("loadgen-reader").expect("short words are an id"),
            cursor: None,
            positions: None,
        };
        session.ask(Command::Connect(connect)).await?;
        Ok(session)
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        self.connection.codec.close();
        let farewell = self.connection.codec.take_output();
        self.connection.writer.write_all(farewell).await.0?;
        Ok(())
    }

    /// Sends a command and waits for its reply. Events that come in between are let go.
    pub(super) async fn ask(&mut self, command: Command) -> anyhow::Result<ServerFrame> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let mut payload = Vec::new();
        Request { id: Some(id), command }.encode(Form::Binary, &mut payload);
        self.connection.codec.send(Form::Binary, payload);
        let bytes = self.connection.codec.take_output();
        self.connection.writer.write_all(bytes).await.0?;
        loop {
            let frame = self.next_frame().await?;
            match &frame {
                ServerFrame::Welcome(welcome) if welcome.id == id => return Ok(frame),
                ServerFrame::Conversations { id: answered, .. } | ServerFrame::Page { id: answered, .. }
                    if *answered == id =>
                {
                    return Ok(frame);
                }
                ServerFrame::Error(error) if error.id == Some(id) => {
                    bail!("{}: {}", error.code.name(), error.message)
                }
                _ => {}
            }
        }
    }

    async fn next_frame(&mut self) -> anyhow::Result<ServerFrame> {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            if !self.frames.is_empty() {
                return Ok(self.frames.remove(0));
            }
            match self.connection.codec.poll_incoming().map_err(|fault| anyhow!(fault))? {
                Some(Incoming::Binary(bytes)) => {
                    ServerFrame::from_input(&Input::Binary(bytes), &mut self.frames)?;
                }
                Some(Incoming::Text(_)) => bail!("text on a binary session"),
                Some(Incoming::Closed(code)) => bail!("the node closed with {code}"),
                None => {
                    let result;
                    (result, buffer) = self.connection.reader.read(buffer).await;
                    if result? == 0 {
                        bail!("the node ended the connection");
                    }
                    self.connection.codec.handle_bytes(&buffer);
                    buffer.clear();
                }
            }
        }
    }
}
