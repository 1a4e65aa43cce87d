//! Tables of what the disk can do under a log: in the way that the node writes, and in all the ways that a log could use it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use benches::disk::{Blocks, Caching, Figures, Scratch, Way, Writer, write};

/// Sizes of batches: a lone message, a few, a busy log's, the largest.
const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

/// How long one thing is measured before it is the next one's turn, and how often.
const SLICE: Duration = Duration::from_millis(150);
const ROUNDS: usize = 4;

/// A large file beside a log: the index of a full segment, where messages go to many.
const LARGE_BYTES: usize = 64 << 20;
const LARGE_ROUNDS: usize = 8;

/// Which blocks to write into, how to sync, how many logs on one device, and beside what.
pub(crate) fn all_ways(directory: &Path) -> io::Result<()> {
    blocks(directory)?;
    ways(directory)?;
    logs(directory)?;
    beside(directory)
}

/// A batch and its sync, as the node writes it.
pub(crate) fn short(directory: &Path) -> io::Result<()> {
    heading("direct, zeroed, through to the disk");
    let file = Scratch::new(directory, "disk-short.measured", Blocks::Zeroed, Caching::Direct)?;
    let mut figures = vec![Figures::default(); SIZES.len()];
    for _ in 0..ROUNDS {
        for (bytes, figures) in SIZES.into_iter().zip(&mut figures) {
            let mut writer = Writer::new(&[&file], Way::Through)?;
            write(&mut writer, figures, bytes, SLICE, &mut 0)?;
        }
    }
    for (bytes, figures) in SIZES.into_iter().zip(&figures) {
        line("one write and its sync", bytes, figures);
    }
    Ok(())
}

fn heading(what: &str) {
    println!("\n{what:<34} {:>9} {:>9} {:>9} {:>10} {:>9}", "batch", "p50 ms", "p99 ms", "a second", "MB/s");
}

fn line(what: &str, bytes: usize, figures: &Figures) {
    println!(
        "{what:<34} {bytes:>9} {:>9.3} {:>9.3} {:>10.0} {:>9.1}",
        figures.millis_at(50),
        figures.millis_at(99),
        figures.a_second(),
        figures.megabytes()
    );
}

/// Which blocks to write into.
fn blocks(directory: &Path) -> io::Result<()> {
    const KINDS: [Blocks; 4] = [Blocks::Extended, Blocks::Reserved, Blocks::Zeroed, Blocks::Recycled];
    heading("direct, linked; blocks that are");
    for bytes in SIZES {
        let mut figures = vec![Figures::default(); KINDS.len()];
        let mut files = Vec::new();
        for kind in KINDS {
            files.push(Scratch::new(directory, &format!("disk-{kind:?}.measured"), kind, Caching::Direct)?);
        }
        let mut offsets = [0; KINDS.len()];
        for _ in 0..ROUNDS {
            for (place, file) in files.iter().enumerate() {
                let mut writer = Writer::new(&[file], Way::Linked)?;
                write(&mut writer, &mut figures[place], bytes, SLICE, &mut offsets[place])?;
            }
        }
        for (kind, figures) in KINDS.iter().zip(&figures) {
            line(&format!("{kind:?}").to_lowercase(), bytes, figures);
        }
    }
    Ok(())
}

/// How to sync.
fn ways(directory: &Path) -> io::Result<()> {
    const WAYS: [(Caching, Way); 6] = [
        (Caching::Direct, Way::Linked),
        (Caching::Direct, Way::Through),
        (Caching::Direct, Way::Thread),
        (Caching::Buffered, Way::Linked),
        (Caching::Buffered, Way::Through),
        (Caching::Buffered, Way::Thread),
    ];
    heading("zeroed blocks; write and sync");
    let direct = Scratch::new(directory, "disk-direct.measured", Blocks::Zeroed, Caching::Direct)?;
    let buffered = Scratch::new(directory, "disk-buffered.measured", Blocks::Zeroed, Caching::Buffered)?;
    for bytes in SIZES {
        let mut figures = vec![Figures::default(); WAYS.len()];
        for _ in 0..ROUNDS {
            for ((caching, way), figures) in WAYS.iter().zip(&mut figures) {
                let file = if *caching == Caching::Direct { &direct } else { &buffered };
                let mut writer = Writer::new(&[file], *way)?;
                write(&mut writer, figures, bytes, SLICE, &mut 0)?;
            }
        }
        for ((caching, way), figures) in WAYS.iter().zip(&figures) {
            line(&format!("{caching:?}, {way:?}").to_lowercase(), bytes, figures);
        }
    }
    Ok(())
}

/// How many logs on one device.
fn logs(directory: &Path) -> io::Result<()> {
    heading("direct, zeroed; logs on the device");
    let mut files = Vec::new();
    for place in 0..4 {
        let name = format!("disk-log-{place}.measured");
        files.push(Scratch::new(directory, &name, Blocks::Zeroed, Caching::Direct)?);
    }
    for bytes in SIZES {
        let ways = [Way::Linked, Way::Through];
        let mut figures = vec![[Figures::default(), Figures::default(), Figures::default()]; ways.len()];
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                for (count, figures) in [1, 2, 4].into_iter().zip(figures) {
                    let files: Vec<&Scratch> = files[..count].iter().collect();
                    let mut writer = Writer::new(&files, *way)?;
                    write(&mut writer, figures, bytes, SLICE, &mut 0)?;
                }
            }
        }
        for (way, figures) in ways.iter().zip(&figures) {
            for (count, figures) in [1, 2, 4].into_iter().zip(figures) {
                line(&format!("{count}, {way:?}").to_lowercase(), bytes, figures);
            }
        }
    }
    Ok(())
}

/// What a batch waits for beside a large file that is synced at once, or a piece after the other.
fn beside(directory: &Path) -> io::Result<()> {
    const PIECES: [(&str, usize); 4] = [
        ("nothing", 0),
        ("64 MiB, synced at once", LARGE_BYTES),
        ("64 MiB, synced each 4", 4 << 20),
        ("64 MiB, synced each MiB", 1 << 20),
    ];
    let what = "4 KiB, direct, zeroed; beside";
    println!("\n{what:<34} {:>9} {:>14} {:>12} {:>9}", "p50 ms", "longest ms", "of all", "took ms");
    let log = Scratch::new(directory, "disk-beside.measured", Blocks::Zeroed, Caching::Direct)?;
    let mut rounds = vec![Vec::new(); PIECES.len()];
    for _ in 0..LARGE_ROUNDS {
        for ((_, piece), rounds) in PIECES.iter().zip(&mut rounds) {
            rounds.push(round_beside(directory, &log, *piece)?);
        }
    }
    for ((what, _), rounds) in PIECES.iter().zip(&mut rounds) {
        let [median, longest, took] = [0, 1, 2].map(|figure| {
            rounds.sort_unstable_by(|one, other| one[figure].total_cmp(&other[figure]));
            rounds[rounds.len() / 2][figure]
        });
        let of_all = rounds.iter().map(|round| round[1]).fold(0.0, f64::max);
        println!("{what:<34} {median:>9.3} {longest:>14.1} {of_all:>12.1} {took:>9.0}");
    }
    Ok(())
}

/// The median of the batches, the longest, and how long the large file took, in milliseconds.
fn round_beside(directory: &Path, log: &Scratch, piece: usize) -> io::Result<[f64; 3]> {
    let mut figures = Figures::default();
    // Made before and removed behind what is measured.
    let file = Scratch::new(directory, "disk-large.measured", Blocks::Extended, Caching::Buffered)?;
    let took = thread::scope(|scope| {
        let large = scope.spawn(|| write_large(&file, piece));
        let mut writer = Writer::new(&[log], Way::Through)?;
        while !large.is_finished() {
            write(&mut writer, &mut figures, 4 << 10, SLICE / 15, &mut 0)?;
        }
        large.join().expect("it only writes")
    })?;
    Ok([figures.millis_at(50), figures.millis_at(100), took.as_secs_f64() * 1_000.0])
}

/// Writes a file through the page cache and syncs each `piece` of it; with pieces of nothing it waits for as long instead.
fn write_large(file: &Scratch, piece: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    if piece == 0 {
        thread::sleep(SLICE);
        return Ok(begun.elapsed());
    }
    let bytes = vec![0xa5; 1 << 20];
    for written in (0..LARGE_BYTES).step_by(bytes.len()) {
        file.file.write_all_at(&bytes, written as u64)?;
        if (written + bytes.len()).is_multiple_of(piece) {
            file.file.sync_data()?;
        }
    }
    Ok(begun.elapsed())
}
