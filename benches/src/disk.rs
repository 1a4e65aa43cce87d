//! A file on a real disk, written the ways that a log could: what the disk benches share.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ring::{Completion, FileBuffer, FileId, Ring, RingConfig, Token};

/// Bytes of the files that are written: one segment of a log.
pub const FILE_BYTES: u64 = storage_log::format::SEGMENT_BYTES;

/// Memory for direct I/O is aligned to this, on any device.
const MEMORY_ALIGN: usize = 4096;

/// The `main` of a program `name` that measures the disk under its one argument.
pub fn main(name: &str, usage: &str, measure: impl FnOnce(&Path) -> io::Result<()>) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    if arguments.next().is_some() || directory.as_os_str() == "--help" {
        eprintln!("{usage}");
        return ExitCode::from(2);
    }
    match measure(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}: {error}", directory.display());
            ExitCode::from(2)
        }
    }
}

/// What a file's blocks are before the write that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocks {
    /// Not there: every write makes the file longer.
    Extended,
    /// Reserved by `fallocate`: every write marks its blocks as written.
    Reserved,
    /// Zeros that were written and synced.
    Zeroed,
    /// As `Zeroed`, and written over once more: a file that is used again.
    Recycled,
}

/// Whether writes go through the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// They do.
    Buffered,
    /// They do not (`O_DIRECT`).
    Direct,
}

/// How a write is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// A write and an fdatasync, linked in the ring.
    Linked,
    /// One write with `RWF_DSYNC`.
    Through,
    /// `pwrite` and `fdatasync` on a thread that is woken for it and wakes the ring.
    Thread,
    /// A write that is not.
    Unsynced,
}

/// A file that is removed when dropped.
pub struct Scratch {
    path: PathBuf,
    /// Open for reading and writing.
    pub file: File,
}

impl Scratch {
    /// Makes the file `name` in `directory`, [`FILE_BYTES`] long unless it is to be extended.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn new(directory: &Path, name: &str, blocks: Blocks, caching: Caching) -> io::Result<Self> {
        let path = directory.join(name);
        let plain = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if caching == Caching::Direct {
            options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        }
        let scratch = Self { file: options.open(&path)?, path };
        if blocks != Blocks::Extended {
            rustix::fs::fallocate(&plain, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES)?;
        }
        let passes = match blocks {
            Blocks::Extended | Blocks::Reserved => 0,
            Blocks::Zeroed => 1,
            Blocks::Recycled => 2,
        };
        for pass in 0..passes {
            // The second time with something else than zeros: what a file that is used again holds.
            let mut block = FileBuffer::aligned(1 << 20, MEMORY_ALIGN);
            block.bytes_mut().fill(pass);
            for place in 0..FILE_BYTES >> 20 {
                scratch.file.write_all_at(block.bytes(), place << 20)?;
            }
        }
        plain.sync_all()?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the name says whose it was.
        let _ = fs::remove_file(&self.path);
    }
}

/// Files that are written to, one write in flight in each.
pub struct Writer {
    ring: Ring,
    files: Vec<FileId>,
    way: Way,
    thread: Option<Helper>,
    completions: Vec<Completion>,
}

/// The thread of [`Way::Thread`].
struct Helper {
    jobs: Sender<(usize, u64, FileBuffer)>,
    done: Receiver<(usize, FileBuffer, io::Result<()>)>,
}

impl Helper {
    fn new(files: Vec<File>, waker: ring::Waker) -> Self {
        let (jobs, todo) = channel::<(usize, u64, FileBuffer)>();
        let (answers, done) = channel();
        thread::spawn(move || {
            while let Ok((place, offset, buffer)) = todo.recv() {
                let file = &files[place];
                let written = file.write_all_at(buffer.bytes(), offset).and_then(|()| file.sync_data());
                if answers.send((place, buffer, written)).is_err() {
                    return;
                }
                waker.wake();
            }
        });
        Self { jobs, done }
    }
}

impl Writer {
    /// A ring with these files in it.
    ///
    /// # Errors
    /// When the system gives no ring or no descriptor.
    pub fn new(files: &[&Scratch], way: Way) -> io::Result<Self> {
        let mut ring =
            Ring::new(RingConfig { sockets_max: 1, ..RingConfig::default() }).map_err(io::Error::other)?;
        let clones = || files.iter().map(|scratch| scratch.file.try_clone()).collect::<io::Result<Vec<_>>>();
        let ids = clones()?.into_iter().map(|file| ring.add_file(file)).collect();
        let thread = if way == Way::Thread { Some(Helper::new(clones()?, ring.waker())) } else { None };
        Ok(Self { ring, files: ids, way, thread, completions: Vec::new() })
    }

    /// Begins to write `buffer` into file `place` and to sync it.
    ///
    /// # Panics
    /// When the helper thread has ended, which none is known to do.
    pub fn begin(&mut self, place: usize, offset: u64, buffer: FileBuffer) {
        let (file, token) = (self.files[place], Token::new(place as u64));
        match self.way {
            Way::Linked => self.ring.write_and_sync(file, offset, buffer, token),
            Way::Through => self.ring.write_through(file, offset, buffer, token),
            Way::Unsynced => self.ring.write(file, offset, buffer, token),
            Way::Thread => {
                let helper = self.thread.as_ref().expect("made with the writer");
                helper.jobs.send((place, offset, buffer)).expect("the thread waits for jobs");
            }
        }
    }

    /// Hands what was begun to the kernel and waits for writes to end: which, and their buffers.
    ///
    /// # Errors
    /// That of the first write that failed.
    pub fn wait(&mut self) -> io::Result<Vec<(usize, FileBuffer)>> {
        loop {
            let ended = self.enter(None)?;
            if !ended.is_empty() {
                return Ok(ended);
            }
        }
    }

    /// Hands what was begun to the kernel and takes what has ended, without waiting for it.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub fn poll(&mut self) -> io::Result<Vec<(usize, FileBuffer)>> {
        self.enter(Some(Duration::ZERO))
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<Vec<(usize, FileBuffer)>> {
        let mut ended = Vec::new();
        self.ring.turn(timeout, &mut self.completions)?;
        for completion in self.completions.drain(..) {
            if let Completion::Written { token, buffer, result } = completion {
                result?;
                ended.push((token.value() as usize, buffer));
            }
        }
        let answers = self.thread.iter().flat_map(|helper| helper.done.try_iter());
        for (place, buffer, result) in answers {
            result?;
            ended.push((place, buffer));
        }
        Ok(ended)
    }
}

/// What writing came to.
#[derive(Clone, Default)]
pub struct Figures {
    latencies: Vec<Duration>,
    bytes: u64,
    elapsed: Duration,
}

impl Figures {
    /// Enters one write.
    pub fn enter(&mut self, latency: Duration, bytes: usize) {
        self.latencies.push(latency);
        self.bytes += bytes as u64;
    }

    /// Enters how long some writing took in all.
    pub fn ran(&mut self, elapsed: Duration) {
        self.elapsed += elapsed;
    }

    /// The latency that so many percent stay within, in milliseconds.
    #[must_use]
    pub fn millis_at(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let place = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }

    /// How long all of it took.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Megabytes (10^6) a second.
    #[must_use]
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    /// Writes a second.
    #[must_use]
    pub fn a_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Writes batches of `bytes` for `time`, or until the files end, one at a time in each file; from `offset` on, which is
/// moved.
///
/// # Errors
/// Those of the disk.
pub fn write(
    writer: &mut Writer,
    figures: &mut Figures,
    bytes: usize,
    time: Duration,
    offset: &mut u64,
) -> io::Result<()> {
    let count = writer.files.len();
    let mut started = vec![Instant::now(); count];
    let mut offsets = vec![*offset; count];
    let mut under_way = 0;
    for (place, start) in started.iter_mut().enumerate() {
        let mut buffer = FileBuffer::aligned(bytes, MEMORY_ALIGN);
        buffer.bytes_mut().fill(0x5a);
        *start = Instant::now();
        writer.begin(place, offsets[place], buffer);
        under_way += 1;
    }
    let begun = Instant::now();
    while under_way > 0 {
        for (place, buffer) in writer.wait()? {
            figures.enter(started[place].elapsed(), bytes);
            offsets[place] += bytes as u64;
            let room = offsets[place] + bytes as u64 <= FILE_BYTES;
            if begun.elapsed() < time && room {
                started[place] = Instant::now();
                writer.begin(place, offsets[place], buffer);
            } else {
                under_way -= 1;
            }
        }
    }
    figures.ran(begun.elapsed());
    *offset = offsets.into_iter().max().unwrap_or_default();
    Ok(())
}
