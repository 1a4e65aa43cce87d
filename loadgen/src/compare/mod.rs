//! `loadgen compare`: this node beside other servers, in turn, in one run on one machine.
//!
//! ```text
//!  one round:  pairs connect -> warm up -> each pair: send, wait until it is delivered (and acknowledged), again -> hang up
//!  a run:      first, second, third, second, third, first, third, first, second, ...
//! ```
//! Who begins a round is another one each time: what a machine does at the beginning of one (its clocks rise, its caches fill) is nobody's own.
//!
//! A closed loop: each pair has one message under way, so a rate says how long one takes where so many are at it, and nobody falls
//! behind. What servers do for a message differs; [`Contender::keeps`] says it, and only like is to be compared with like.

mod nats;
mod socket;
mod table;

use std::{
    cell::RefCell,
    net::{SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
    rc::Rc,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use monoio::time::{sleep, timeout};
use protocol::limits::HEARTBEAT_MILLIS;
use serde::Serialize;

use crate::{
    cli::CompareFlags,
    client::{Endpoint, Signer},
    clock::Moment,
    controller::endpoint,
    host::{Reading, holder_of, listener_of},
    latency::{Latencies, Summary},
    random::Random,
    report::Floor,
    runtime,
    worker::raise_file_limit_for,
};
use nats::{Exchange, Kept, NatsPair};
use socket::{Chat, Echo};
use table::Table;

/// Messages before any counts: connections are warm then, and a log has its segments.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long one message may take: then something is wrong.
const MESSAGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// All of a round but what is measured: connecting is one pair after the other.
const SETUP_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often each pair says that it is there: a node closes who says nothing for twice as long, as a receiver does, and NATS whoever does not
/// answer its pings, as one that publishes and reads nothing.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MILLIS);
const RING_ENTRIES: u32 = 4096;

/// A server that is measured, as it is given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    kind: Kind,
    /// `HOST:PORT`, of an echo service with the path.
    place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gatehouse,
    Echo,
    Nats,
    JetStream,
}

const KINDS: [(&str, Kind); 4] = [
    ("gatehouse", Kind::Gatehouse),
    ("jetstream", Kind::JetStream),
    ("nats", Kind::Nats),
    ("ws", Kind::Echo),
];

impl FromStr for Contender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let given = text.split_once("://").filter(|(_, place)| !place.is_empty());
        let found = given.and_then(|(scheme, place)| {
            let (_, kind) = KINDS.iter().find(|(name, _)| *name == scheme)?;
            Some(Self { kind: *kind, place: place.to_owned() })
        });
        let words = "give gatehouse://HOST:PORT, jetstream://HOST:PORT, nats://HOST:PORT, or ws://HOST:PORT of an echo service";
        found.ok_or_else(|| words.to_owned())
    }
}

impl Contender {
    fn name(&self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self.kind).expect("all kinds have one").0
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let host = self.place.split('/').next().unwrap_or_default();
        let mut all = host.to_socket_addrs().with_context(|| format!("{host}: no such host and port"))?;
        all.next().with_context(|| format!("{host} has no address"))
    }

    /// What has become of a message when it counts.
    const fn keeps(&self) -> &'static str {
        match self.kind {
            Kind::Gatehouse => "on disk, synced; acknowledged; delivered",
            Kind::JetStream => "in its file store, synced if its server is told to; acknowledged; delivered",
            Kind::Nats => "delivered, kept nowhere",
            Kind::Echo => "sent back, kept nowhere",
        }
    }

    /// What the server sends for a message: the message, and the word that it is kept, where it gives one.
    const fn sends(&self) -> u32 {
        if self.stores() { 2 } else { 1 }
    }

    /// Whether a message is kept before it counts.
    const fn stores(&self) -> bool {
        matches!(self.kind, Kind::Gatehouse | Kind::JetStream)
    }
}

/// What one server did in one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    per_second: f64,
    /// From the send until the receiver has it, and the sender the word that it is kept.
    through: Summary,
    /// Microseconds of the server's cores a message; absent where its process is not found on this machine.
    cpu_micros: Option<f64>,
}

/// `loadgen compare`.
pub(crate) fn compare(flags: &CompareFlags) -> anyhow::Result<ExitCode> {
    ensure!(flags.contenders.len() > 1, "one alone is no comparison: give another");
    let signer = match flags.contenders.iter().any(|one| one.kind == Kind::Gatehouse) {
        true => Some(Signer::new(&Signer::read_secret(&flags.secret()?)?)),
        false => None,
    };
    raise_file_limit_for(2 * u64::from(flags.pairs)).context("use fewer --pairs, or raise ulimit -n")?;
    let mut runtime = runtime::start(RING_ENTRIES, runtime::Completions::AtOnce)?;
    let mut table = Table::new(flags, Floor::find(&flags.floor)?);
    let comparison = Comparison { flags, signer: signer.map(Rc::new) };
    for number in 1..=flags.rounds {
        for place in order(flags.contenders.len(), number) {
            let contender = &flags.contenders[place];
            eprintln!(
                "loadgen: round {number} of {}: {} at {}",
                flags.rounds,
                contender.name(),
                contender.place
            );
            let round = runtime.block_on(comparison.round_in_time(contender));
            table.add(place, round.with_context(|| format!("{} at {}", contender.name(), contender.place))?);
        }
    }
    table.write(flags.json.as_deref())?;
    print!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// The places of so many contenders in the order of a round, from 1.
fn order(contenders: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..contenders).map(move |turn| (turn + round as usize - 1) % contenders)
}

/// A sender and a receiver, with a server between them.
trait Line {
    async fn send(&mut self, text: &str) -> anyhow::Result<()>;
    /// What the receiver was given.
    async fn delivered(&mut self) -> anyhow::Result<String>;
    /// Waits for the server's word that it is kept, where it gives one.
    async fn acknowledged(&mut self) -> anyhow::Result<()>;
    /// Says that it is there and waits until the server has heard it, while no message is under way.
    async fn beat(&mut self) -> anyhow::Result<()>;
}

enum Pair {
    Chat(Box<Chat>),
    Echo(Box<Echo>),
    Nats(Box<NatsPair>),
}

/// Sends a text and waits until it is through: when that was.
async fn exchange(line: &mut impl Line, text: &str) -> anyhow::Result<Moment> {
    line.send(text).await?;
    // First: a refusal comes this way, and then nothing the other.
    line.acknowledged().await?;
    let delivered = line.delivered().await?;
    ensure!(delivered == text, "what was delivered is not what was sent");
    Ok(Moment::now())
}

/// What pairs have measured between two moments.
struct Counter {
    from: Moment,
    until: Moment,
    through: Latencies,
    fault: Option<anyhow::Error>,
    pairs_left: u32,
}

struct Comparison<'a> {
    flags: &'a CompareFlags,
    signer: Option<Rc<Signer>>,
}

impl Comparison<'_> {
    /// A server that does not answer is no result, and is waited for no longer than this.
    async fn round_in_time(&self, contender: &Contender) -> anyhow::Result<Round> {
        let most =
            SETUP_WAIT_MAX + WARM_UP + Duration::from_secs(self.flags.seconds.into()) + MESSAGE_WAIT_MAX;
        let round = timeout(most, self.round(contender)).await;
        round.unwrap_or_else(|_| bail!("it did not answer in time: is what was asked for switched on?"))
    }

    async fn round(&self, contender: &Contender) -> anyhow::Result<Round> {
        let tag = format!("lgc{:08x}", Random::from_system()?.next() as u32);
        let address = contender.address()?;
        let exchange = match contender.kind {
            Kind::Nats => Some(Exchange::new(address, &tag, Kept::Nowhere).await?),
            Kind::JetStream => Some(Exchange::new(address, &tag, Kept::Stream).await?),
            Kind::Gatehouse | Kind::Echo => None,
        };
        let mut pairs = Vec::new();
        for number in 0..self.flags.pairs {
            pairs.push(match (contender.kind, &exchange, &self.signer) {
                (Kind::Echo, ..) => {
                    Pair::Echo(Box::new(Echo::open(address, &format!("ws://{}", contender.place))?))
                }
                (_, Some(exchange), _) => Pair::Nats(Box::new(exchange.pair(number).await?)),
                (_, None, Some(signer)) => {
                    let endpoint: Endpoint = endpoint(&format!("ws://{}", contender.place))?;
                    Pair::Chat(Box::new(Chat::open(&endpoint, signer, &tag, number).await?))
                }
                (_, None, None) => bail!("there is no key to sign tokens with"),
            });
        }
        let round = self.measure(pairs, self.process_of(contender, address)).await;
        if let Some(exchange) = exchange {
            exchange.end().await?;
        }
        round
    }

    /// The server's process, if it is on this machine.
    fn process_of(&self, contender: &Contender, address: SocketAddr) -> Option<u32> {
        let node = || holder_of(&self.flags.data.as_ref()?.join("lock"));
        match contender.kind {
            _ if !address.ip().is_loopback() => None,
            Kind::Gatehouse => node(),
            // Listeners of a ring are in no table of a process: the node's own echo service has its lock.
            Kind::Echo => listener_of(address.port()).or_else(node),
            Kind::Nats | Kind::JetStream => listener_of(address.port()),
        }
    }

    async fn measure(&self, pairs: Vec<Pair>, process: Option<u32>) -> anyhow::Result<Round> {
        let cpu = || process.and_then(|process| Some(Reading::take(process).ok()?.cpu));
        let seconds = Duration::from_secs(self.flags.seconds.into());
        let from = Moment::now().after(WARM_UP);
        let until = from.after(seconds);
        let pairs_left = pairs.len() as u32;
        let through = Latencies::default();
        let counter = Rc::new(RefCell::new(Counter { from, until, through, fault: None, pairs_left }));
        for (number, pair) in pairs.into_iter().enumerate() {
            // Who came together does not beat together; the first one does at once.
            let rhythm = Rhythm {
                next: Moment::now().after(HEARTBEAT * number as u32 / pairs_left),
                every: HEARTBEAT,
            };
            let (payload, counter) = (self.flags.payload, counter.clone());
            match pair {
                Pair::Chat(pair) => monoio::spawn(go_on(*pair, payload, rhythm, counter)),
                Pair::Echo(pair) => monoio::spawn(go_on(*pair, payload, rhythm, counter)),
                Pair::Nats(pair) => monoio::spawn(go_on(*pair, payload, rhythm, counter)),
            };
        }
        sleep(WARM_UP).await;
        let before = cpu();
        sleep(until.since(Moment::now())).await;
        let after = cpu();
        let give_up = Moment::now().after(MESSAGE_WAIT_MAX);
        while counter.borrow().pairs_left > 0 {
            ensure!(
                Moment::now() < give_up,
                "a message was not delivered within {} s",
                MESSAGE_WAIT_MAX.as_secs()
            );
            sleep(Duration::from_millis(10)).await;
        }
        let mut counter = counter.borrow_mut();
        if let Some(fault) = counter.fault.take() {
            return Err(fault);
        }
        let count = counter.through.count();
        ensure!(count > 0, "nothing was delivered in {} s", seconds.as_secs());
        let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before).as_secs_f64());
        Ok(Round {
            per_second: count as f64 / seconds.as_secs_f64(),
            through: counter.through.summary(),
            cpu_micros: cpu.map(|cpu| cpu * 1e6 / count as f64),
        })
    }
}

/// When a pair says that it is there.
struct Rhythm {
    next: Moment,
    every: Duration,
}

impl Rhythm {
    fn is_due(&mut self, now: Moment) -> bool {
        let is_due = now >= self.next;
        if is_due {
            self.next = now.after(self.every);
        }
        is_due
    }
}

/// One message after the other, until time is over.
async fn go_on(mut pair: impl Line, payload: usize, mut rhythm: Rhythm, counter: Rc<RefCell<Counter>>) {
    let (from, until) = (counter.borrow().from, counter.borrow().until);
    for number in 0_u64.. {
        let heard = if rhythm.is_due(Moment::now()) { pair.beat().await } else { Ok(()) };
        let sent = Moment::now();
        if sent >= until {
            break;
        }
        let ended = match heard {
            Ok(()) => exchange(&mut pair, &format!("{number:0payload$}")).await,
            Err(fault) => Err(fault),
        };
        let mut counter = counter.borrow_mut();
        match ended {
            Ok(at) if at >= from && at < until => counter.through.record(at.since(sent)),
            Ok(_) => {}
            Err(fault) => {
                counter.fault.get_or_insert(fault);
                break;
            }
        }
        if counter.fault.is_some() {
            break;
        }
    }
    counter.borrow_mut().pairs_left -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_in_turn() {
        let rounds: Vec<Vec<usize>> = (1..=4).map(|round| order(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    /// One that notes what it is asked.
    struct Noted(Rc<RefCell<String>>, String);

    impl Line for Noted {
        async fn send(&mut self, text: &str) -> anyhow::Result<()> {
            self.0.borrow_mut().push('s');
            text.clone_into(&mut self.1);
            Ok(())
        }

        async fn delivered(&mut self) -> anyhow::Result<String> {
            sleep(Duration::from_millis(1)).await;
            self.0.borrow_mut().push('d');
            Ok(std::mem::take(&mut self.1))
        }

        async fn acknowledged(&mut self) -> anyhow::Result<()> {
            self.0.borrow_mut().push('a');
            Ok(())
        }

        async fn beat(&mut self) -> anyhow::Result<()> {
            self.0.borrow_mut().push('b');
            Ok(())
        }
    }

    #[test]
    fn a_pair_says_that_it_is_there_as_often_as_it_has_to_and_never_with_a_message_under_way() {
        let from = Moment::now();
        let (until, every) = (from.after(Duration::from_millis(300)), Duration::from_millis(20));
        let through = Latencies::default();
        let counter = Rc::new(RefCell::new(Counter { from, until, through, fault: None, pairs_left: 1 }));
        let notes = Rc::new(RefCell::new(String::new()));
        let pair = Noted(notes.clone(), String::new());
        let rhythm = Rhythm { next: from, every };
        runtime::start(8, runtime::Completions::AtOnce).expect("io_uring").block_on(go_on(
            pair,
            10,
            rhythm,
            counter.clone(),
        ));
        assert!(counter.borrow().fault.is_none() && counter.borrow().pairs_left == 0);
        let notes = notes.take();
        assert!(notes.starts_with("bsad"), "at once: {notes}");
        assert_eq!(notes.replace('b', "").replace("sad", ""), "", "in between: {notes}");
        assert!(!notes.contains("bb") && notes.matches("bsad").count() > 1, "again and again: {notes}");
    }

    #[test]
    fn contenders_are_told_by_their_scheme() {
        for (text, kind, place) in [
            ("gatehouse://127.0.0.1:7100", Kind::Gatehouse, "127.0.0.1:7100"),
            ("jetstream://nats.example:4222", Kind::JetStream, "nats.example:4222"),
            ("nats://[::1]:4222", Kind::Nats, "[::1]:4222"),
            ("ws://127.0.0.1:9001/echo", Kind::Echo, "127.0.0.1:9001/echo"),
        ] {
            assert_eq!(text.parse(), Ok(Contender { kind, place: place.to_owned() }));
        }
        for text in ["127.0.0.1:4222", "kafka://127.0.0.1:9092", "ws://", ""] {
            assert!(text.parse::<Contender>().is_err(), "{text}");
        }
    }
}
