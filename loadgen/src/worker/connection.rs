//! The I/O of a user: one task that dials, reads to the end, waits, and dials again; and short tasks that
//! write.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf},
    time::{Instant, Sleep, sleep},
};
use protocol::{event::CloseCode, limits::IDLE_MILLIS_MAX};

use super::{
    State, Worker,
    user::{Link, Presence},
};
use crate::{
    client::{Connection, dial},
    clock::Moment,
    link::Pace,
};

/// How often who does not read looks whether it may.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Silence after which a node is given up: it answers a ping well before.
const SILENCE_MAX: Duration = Duration::from_millis(IDLE_MILLIS_MAX + 5000);

/// A user's life, until all are to be away.
pub(super) async fn live(worker: Rc<Worker>, place: usize, begin_after: Duration) {
    worker.with(|state| state.desk.muster.tasks += 1);
    come_and_go(&worker, place, begin_after).await;
    worker.with(|state| state.desk.muster.tasks -= 1);
}

async fn come_and_go(worker: &Rc<Worker>, place: usize, begin_after: Duration) {
    sleep(begin_after).await;
    while !worker.with(|state| state.desk.muster.is_over) {
        if let Some(rest) = worker.with(|state| state.users[place].stays_away(Moment::now())) {
            sleep(rest).await;
            continue;
        }
        // In a box: what it needs is freed when it is online.
        match Box::pin(open(worker, place)).await {
            Ok(reader) => {
                let code = read(worker, place, reader).await;
                worker.with(|state| state.users[place].handle_lost(&mut state.desk, code));
            }
            Err(error) => worker.with(|state| {
                state.desk.tally.counts.dial_failures += 1;
                state.desk.dials_fail_since.get_or_insert(Moment::now());
                state.desk.last_fault = Some(error.to_string());
            }),
        }
        let wait = worker.with(|state| {
            let user = &mut state.users[place];
            (user.presence != Presence::Stopped).then(|| user.backoff(&mut state.desk))
        });
        let Some(wait) = wait else { return };
        sleep(wait).await;
    }
}

/// Opens the WebSocket and asks for a session.
async fn open(worker: &Rc<Worker>, place: usize) -> anyhow::Result<TcpOwnedReadHalf> {
    let (form, name, nonce, source) = worker.with(|state| {
        let State { users, desk, .. } = state;
        let (user, random) = (&users[place], &mut desk.random);
        let nonce = u128::from(random.next()) << 64 | u128::from(random.next());
        let source = desk.config.source_of(place, user.connection_count());
        (user.form, desk.plan.name(user.index), nonce, source)
    });
    let token = worker.signer.sign(&name)?;
    let opened = dial(&worker.endpoint, source, form, nonce.to_be_bytes()).await?;
    let Connection { reader, writer, codec } = opened;
    worker.with(|state| {
        state.users[place].handle_open(&mut state.desk, Link { codec, writer: Some(writer) }, token);
        state.dirty.push(place);
    });
    Ok(reader)
}

/// Reads until the connection ends, and says how it did.
async fn read(worker: &Rc<Worker>, place: usize, mut reader: TcpOwnedReadHalf) -> CloseCode {
    // What came behind the response to the upgrade.
    let mut ended = handle(worker, place, &[]);
    let mut buffer = Vec::with_capacity(worker.endpoint.read_buffer_bytes);
    let mut timer = pin!(sleep(SILENCE_MAX));
    while ended.is_none() {
        keep_pace(worker, buffer.len()).await;
        buffer.clear();
        let read = pin!(reader.read(buffer));
        let Some((result, filled)) = unless_silent(timer.as_mut(), SILENCE_MAX, read).await else {
            return CloseCode::ABNORMAL;
        };
        buffer = filled;
        if !matches!(result, Ok(1..)) {
            return CloseCode::ABNORMAL;
        }
        ended = handle(worker, place, &buffer);
    }
    ended.unwrap_or(CloseCode::ABNORMAL)
}

/// What is read, unless nothing comes for too long. `timer` is one for all reads of a connection, which begin far oftener than it ends: it is
/// set anew when it has ended, by when this read began.
async fn unless_silent<T>(
    mut timer: Pin<&mut Sleep>,
    silence_max: Duration,
    mut read: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let end = Instant::now() + silence_max;
    poll_fn(|context| {
        if let Poll::Ready(read) = read.as_mut().poll(context) {
            return Poll::Ready(Some(read));
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    })
    .await
}

/// Waits, behind `bytes` that were read, until more may be.
async fn keep_pace(worker: &Rc<Worker>, bytes: usize) {
    loop {
        match worker.with(|state| state.desk.pace) {
            Pace::Full => return,
            Pace::Stalled => sleep(LOOK_EVERY).await,
            Pace::Slow { bytes_per_second } => {
                return sleep(Duration::from_secs(1) * bytes as u32 / bytes_per_second).await;
            }
        }
    }
}

fn handle(worker: &Rc<Worker>, place: usize, bytes: &[u8]) -> Option<CloseCode> {
    let now = Moment::now();
    worker.with(|state| {
        state.dirty.push(place);
        state.users[place].handle_bytes(&mut state.desk, bytes, now)
    })
}

/// Starts to write for every user that has something to write and no write under way.
pub(super) fn flush(worker: &Rc<Worker>) {
    let mut state = worker.state.borrow_mut();
    let state = &mut *state;
    for place in state.dirty.drain(..) {
        let user = &mut state.users[place];
        let Some(link) = &mut user.link else { continue };
        if link.codec.has_output()
            && let Some(writer) = link.writer.take()
        {
            let (bytes, connection) = (link.codec.take_output(), user.connection);
            monoio::spawn(write(worker.clone(), place, connection, writer, bytes));
        }
    }
}

/// Writes until there is nothing to write. A failure shows at the reading side as well.
async fn write(
    worker: Rc<Worker>,
    place: usize,
    connection: u64,
    mut writer: TcpOwnedWriteHalf,
    mut bytes: Vec<u8>,
) {
    loop {
        if writer.write_all(bytes).await.0.is_err() {
            return;
        }
        let mut state = worker.state.borrow_mut();
        let user = &mut state.users[place];
        let Some(link) = user.link.as_mut().filter(|_| user.connection == connection) else { return };
        if !link.codec.has_output() {
            link.writer = Some(writer);
            return;
        }
        bytes = link.codec.take_output();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::runtime::{self, Completions};

    #[test]
    fn a_timer_that_ended_in_an_earlier_read_gives_up_only_who_is_silent() {
        let mut runtime = runtime::start(8, Completions::AtOnce).expect("io_uring");
        runtime.block_on(async {
            let mut timer = pin!(sleep(Duration::ZERO));
            let read = pin!(sleep(Duration::from_millis(5)));
            assert_eq!(unless_silent(timer.as_mut(), SILENCE_MAX, read).await, Some(()));
            let (begun, silence_max) = (Instant::now(), Duration::from_millis(10));
            timer.as_mut().reset(begun);
            assert_eq!(unless_silent(timer, silence_max, pin!(pending::<()>())).await, None);
            assert!(begun.elapsed() >= silence_max);
        });
    }
}
