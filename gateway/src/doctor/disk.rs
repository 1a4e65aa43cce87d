//! What the data directory's disk takes for a sync: every acknowledgement waits for one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Check, Verdict};

/// Syncs measured: a second on a disk, a tenth of it on flash.
const ROUNDS: usize = 200;

/// One sector.
const BLOCK_BYTES: usize = 512;

/// Syncs slower than this make acknowledgements slow, whatever the node does: the objective is 200 ms for a delivery.
const P99_MAX: Duration = Duration::from_millis(50);

/// Writes a block and syncs it, in a file of its own that is removed again.
#[must_use]
pub fn probe(data: &Path) -> Check {
    let (verdict, found, fix) = match measure(data) {
        Ok((p50, p99)) => {
            let verdict = if p99 <= P99_MAX { Verdict::Good } else { Verdict::Warning };
            let found = format!("write and sync of {BLOCK_BYTES} bytes: p50 {p50:.1?}, p99 {p99:.1?}");
            (verdict, found, "put `data` on a disk of its own, with a write cache that survives a power cut")
        }
        Err(error) => {
            let found = format!("{}: {error}", data.display());
            (
                Verdict::Fault,
                found,
                "make `data` a directory that the user of the node may write, with room in it",
            )
        }
    };
    Check {
        name: "disk",
        verdict,
        found,
        wanted: format!("p99 at most {P99_MAX:?}"),
        why: "an acknowledgement waits for one sync",
        fix: fix.to_owned(),
    }
}

fn measure(data: &Path) -> std::io::Result<(Duration, Duration)> {
    let path = data.join("doctor.probe");
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    let result = (|| {
        file.write_all_at(&vec![0; BLOCK_BYTES * ROUNDS], 0)?;
        file.sync_all()?;
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            let begun = Instant::now();
            file.write_all_at(&[1; BLOCK_BYTES], (round * BLOCK_BYTES) as u64)?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok((times[ROUNDS / 2], times[ROUNDS * 99 / 100]))
    })();
    fs::remove_file(&path)?;
    result
}
