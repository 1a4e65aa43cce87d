//! Tables of what the disk can do under a log: in the way that the node writes, and in all the ways that a log could use it.

use std::io;
use std::path::Path;
use std::time::Duration;

use benches::disk::{Blocks, Caching, Figures, Scratch, Way, Writer, write};

/// Sizes of batches: a lone message, a few, a busy log's, the largest.
const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

/// How long one thing is measured before it is the next one's turn, and how often.
const SLICE: Duration = Duration::from_millis(150);
const ROUNDS: usize = 4;

/// Which blocks to write into, how to sync, how many logs on one device.
pub(crate) fn all_ways(directory: &Path) -> io::Result<()> {
    blocks(directory).and_then(|()| ways(directory)).and_then(|()| logs(directory))
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
