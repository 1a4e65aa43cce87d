//! The index of words: how many messages a second it takes, what one takes of the disk, and how long a question takes.
//!
//! Messages are made up: twelve words each, of a vocabulary in which a word is as frequent as its rank says (Zipf), in conversations of which
//! one user has so many.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use router::words;
use search::{Asked, Check, Document, Index, Opened, Reader, Scope};

const USAGE: &str = "\
Makes an index of MESSAGES messages in CONVERSATIONS conversations in DIR, and asks it.

  words DIR [MESSAGES [CONVERSATIONS]]     default: 1,000,000 in 10,000; needs 1 GiB in DIR

Example: cargo run --release -p benches --bin words -- /var/tmp/words
Exit: 0 measured, 2 could not.";

/// Words of a message, and different ones in all.
const WORDS: u64 = 12;
const VOCABULARY: u64 = 100_000;

/// Conversations of the user that asks.
const OWN: u64 = 100;

/// A commit each so many messages, as a follower that is behind makes one.
const COMMIT_EVERY: u64 = 200_000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().filter(|first| first != "--help").map(PathBuf::from);
    let mut number = |default: u64| arguments.next().map_or(Some(default), |text| text.parse().ok());
    let (Some(directory), Some(messages), Some(conversations)) =
        (directory, number(1_000_000), number(10_000))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match measure(&directory, messages, conversations) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("words: {}: {error:#}", directory.display());
            ExitCode::from(2)
        }
    }
}

fn measure(directory: &Path, messages: u64, conversations: u64) -> anyhow::Result<()> {
    Index::remove(directory)?;
    let opened = Index::open(directory, Check::Sums).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let Opened::Made(mut index) = opened else { anyhow::bail!("there is one") };
    let (begun, mut text_bytes) = (Instant::now(), 0);
    for number in 0..messages {
        let text = text_of(number);
        text_bytes += text.len();
        let document = Document {
            conversation: id(mix(number) % conversations),
            seq: number / conversations + 1,
            sender: b"somebody",
            at: 1_800_000_000_000 + number,
            log: (number % 2) as u16,
            position: number,
            words: words::of_message(&text),
        };
        index.add(document).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        if (number + 1).is_multiple_of(COMMIT_EVERY) || number + 1 == messages {
            index.commit("mark").map_err(|error| anyhow::anyhow!("{error:?}"))?;
        }
    }
    let took = begun.elapsed();
    println!(
        "{messages} messages of {} bytes in {conversations} conversations",
        text_bytes as u64 / messages
    );
    println!("indexed in {:.1} s, {:.0} a second", took.as_secs_f64(), messages as f64 / took.as_secs_f64());
    let bytes = bytes_of(directory)?;
    println!("{} bytes on disk, {:.1} a message", bytes, bytes as f64 / messages as f64);
    let reader = index.reader();
    let own = Arc::new(Scope::new((0..OWN).map(|number| (id(number), 1))));
    let all = Arc::new(Scope::new((0..conversations).map(|number| (id(number), 1))));
    for (rank, name) in [(0, "the most frequent word"), (100, "the 100th"), (10_000, "the 10,000th")] {
        ask(&reader, name, &[rank], &own, OWN);
        ask(&reader, name, &[rank], &all, conversations);
    }
    ask(&reader, "the most frequent three", &[0, 1, 2], &own, OWN);
    ask(&reader, "the most frequent three", &[0, 1, 2], &all, conversations);
    let begun = Instant::now();
    index.remove_sender(b"somebody", 0, messages / 2).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    index.commit("mark").map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let removed = begun.elapsed();
    while !index.purge().map_err(|error| anyhow::anyhow!("{error:?}"))? {}
    println!(
        "a quarter erased in {:.2} s, out of all files in {:.2} s",
        removed.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn ask(reader: &Reader, name: &str, ranks: &[u64], scope: &Arc<Scope>, conversations: u64) {
    let words = ranks.iter().map(|rank| word(*rank)).collect();
    let asked = Asked { words, scope: scope.clone(), before: None, candidates_max: 60 };
    let mut times: Vec<Duration> = Vec::new();
    let mut found = 0;
    for _ in 0..21 {
        let begun = Instant::now();
        found = reader.find(&asked).map_or(0, |found| found.newest.len());
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "{name}, in {conversations} conversations: {found} found, median {:.2} ms, longest {:.2}",
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3
    );
}

fn text_of(number: u64) -> String {
    let one = |place| {
        let roll = mix(number * WORDS + place) as f64 / u64::MAX as f64;
        // The inverse of the sum of 1/rank, which is a logarithm.
        word((VOCABULARY as f64).powf(roll) as u64 - 1)
    };
    (0..WORDS).map(one).collect::<Vec<_>>().join(" ")
}

/// A word of two to eight letters, the shorter the more frequent.
fn word(rank: u64) -> String {
    let mut word = format!("w{:x}", mix(rank) >> 52);
    word.push_str(&format!("{rank:x}"));
    word
}

fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(number).to_le_bytes());
    id[8..].copy_from_slice(&mix(!number).to_le_bytes());
    id
}

fn mix(seed: u64) -> u64 {
    let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn bytes_of(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).context("the index")? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
