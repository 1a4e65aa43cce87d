//! What all that stands in the data directory is done with: names, syncs, and files that are put in place whole, so that what stands under a
//! name is what was there before, or what was written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use storage_log::{as_appended, segment_file_name};

/// Where the segments of a log are.
#[must_use]
pub fn log_directory(directory: &Path, log: u16) -> PathBuf {
    directory.join(format!("log-{log:02}"))
}

/// Brings what is named in a directory to the disk.
///
/// # Errors
/// Those of the disk.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Name of the cold segment in place of the one at `base`: `seg-<base, 16 hex digits>.cold`.
#[must_use]
pub fn cold_file_name(base: u64) -> String {
    segment_file_name(as_appended(base)).replace(".log", ".cold")
}

/// Puts what `write` writes in place of the file at `path`, for its owner alone: under the same name with `.new`, synced, renamed, and the
/// directory synced. What `write` gives, and the file. What could not be written is removed at once: a full disk has the last of its room there.
///
/// # Errors
/// The first of `write` or of the disk: then what stood there before still does, or the new one, if only the last sync failed.
pub fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<(T, File)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let written = write_whole(new, write).and_then(|written| fs::rename(new, path).map(|()| written));
    if written.is_err() {
        // Best effort: the next attempt truncates it anyway.
        let _ = fs::remove_file(new);
    }
    let written = written?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    sync_directory(directory.unwrap_or(Path::new(".")))?;
    Ok(written)
}

fn write_whole<T>(new: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<(T, File)> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).read(true).write(true).mode(0o600).open(new)?;
    let written = write(&mut file)?;
    file.sync_all()?;
    Ok((written, file))
}

/// A large file is written by this much.
const PIECE_BYTES: usize = 1 << 20;

/// Writes into a file in pieces of a mebibyte, each synced before the next, so that no batch of a log waits behind more than that: beside 64 MiB that are
/// synced all at once one waits for 37 ms, and so for 1.3 (`floor --disk`). What is left at the end is written by `flush`, for the caller to sync. Behind an
/// error nothing is tried again.
pub fn in_synced_pieces(file: &mut File) -> impl Write + '_ {
    Pieces::new(file, |file: &mut &mut File| file.sync_data())
}

/// Not a `BufWriter`: that writes once more, when it is dropped, what an error was given for, and would sync it once more.
struct Pieces<W, S> {
    out: W,
    sync: S,
    piece: Vec<u8>,
}

impl<W: Write, S: FnMut(&mut W) -> io::Result<()>> Pieces<W, S> {
    fn new(out: W, sync: S) -> Self {
        Self { out, sync, piece: Vec::with_capacity(PIECE_BYTES) }
    }
}

impl<W: Write, S: FnMut(&mut W) -> io::Result<()>> Write for Pieces<W, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
            (self.sync)(&mut self.out)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.piece);
        self.piece.clear();
        written
    }
}

/// Whether nothing was ever written from `offset` on: what is only reserved need not be read to be known as zeros.
pub fn is_blank_from(file: &File, offset: u64) -> bool {
    seek(file, SeekFrom::Data(offset)) == Err(rustix::io::Errno::NXIO)
}

/// Reads from `offset` on until the buffer is full or the file ends: how many bytes.
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_piece_is_written_between_two_syncs() {
        for (count, pieces) in [(900, 0), (16_000, 15)] {
            let mut synced = vec![0];
            let sync = |out: &mut Vec<u8>| {
                synced.push(out.len());
                Ok(())
            };
            let mut out = Pieces::new(Vec::new(), sync);
            let chunk = |number: usize| [number as u8; 1_024];
            (0..count).for_each(|number| out.write_all(&chunk(number)).expect("memory"));
            out.flush().expect("memory");
            let written = out.out;
            // What is left is for the caller.
            assert_eq!(synced.len() - 1, pieces, "{synced:?}");
            assert!(synced.windows(2).all(|pair| pair[1] - pair[0] == PIECE_BYTES), "{synced:?}");
            assert!(
                written.chunks(1_024).map(<[u8]>::to_vec).eq((0..count).map(|number| chunk(number).to_vec()))
            );
        }
    }

    /// Whatever a disk says of the second try, it has told of the loss at the first.
    #[test]
    fn a_piece_that_could_not_be_synced_is_neither_written_nor_synced_again() {
        let (mut bytes, mut syncs) = (Vec::new(), 0);
        let failing = |_: &mut &mut Vec<u8>| {
            syncs += 1;
            Err(ErrorKind::Other.into())
        };
        let mut out = Pieces::new(&mut bytes, failing);
        out.write_all(&vec![1; PIECE_BYTES + 1]).expect_err("it is told");
        drop(out);
        assert_eq!((bytes.len(), syncs), (PIECE_BYTES, 1));
    }

    #[test]
    fn what_could_not_be_written_leaves_what_was_there_and_takes_no_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        replace(&path, |file| file.write_all(b"before")).expect("room");
        let failed = replace(&path, |file| {
            file.write_all(b"half of ")?;
            Err::<(), _>(ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.map(drop).map_err(|error| error.kind()), Err(ErrorKind::StorageFull));
        assert_eq!(fs::read(&path).expect("it is there"), b"before");
        let there = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(there, 1, "only the file");
    }
}
