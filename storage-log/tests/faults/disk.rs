//! A disk of named files: what of them is durable, what only the page cache has, and what each call may do instead.
//!
//! A sector is there as a whole or not at all. A crash keeps any subset of the sectors and of the changes of names that were not
//! synced. A sync that fails leaves what it was to bring to the disk in the cache, where it reads back fine, and no later sync writes
//! it; a part of it may be on the disk. A sync of a file says nothing of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// What a disk writes as a whole.
pub(crate) const SECTOR_BYTES: usize = 512;

/// All subsets are tried of so many unsynced sectors, so of every batch but the largest. Of more, those that a batch can tell apart:
/// the first sector has its header, the rest is under one sum, which all are needed for.
const ALL_SUBSETS_MAX: usize = 6;

/// A call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed;

/// What a call does instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails. What a sync or write had to do may be done in part.
    Error,
    /// A write ends early, and says so; any other call fails.
    Short,
}

/// A read brings other bytes, once.
#[derive(Clone, Debug)]
pub(crate) struct Misread {
    /// The number of the read.
    pub(crate) read: usize,
    /// Where in what it reads.
    pub(crate) at: usize,
    /// What stands there then.
    pub(crate) bytes: Vec<u8>,
}

/// A read as it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// A sector that was written, and is not known to be durable.
#[derive(Clone)]
struct Written {
    number: usize,
    bytes: Arc<[u8]>,
    /// No sync will write it any more.
    given_up: bool,
}

#[derive(Clone, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    cached: Arc<Vec<u8>>,
    written: Vec<Written>,
}

/// Names that change at once: a file that is made, renamed or removed.
type Renaming = Vec<(String, Option<usize>)>;

/// Something that a crash keeps or loses.
#[derive(Clone, Copy)]
enum Unit {
    Sector { file: usize, place: usize },
    Names { place: usize },
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renamings: Vec<Renaming>,
    /// The number of the log that it holds.
    pub(crate) log: u16,
    /// The newest position that anybody was told of: what the owner of the log says, kept for what is seen later.
    pub(crate) told: u64,
    /// Calls that change something, since they are counted.
    pub(crate) calls: usize,
    /// The call that does something else.
    pub(crate) fault: Option<(usize, Fault)>,
    /// The disk as it was before each sync, if that is wanted: between two syncs there is only less to lose.
    pub(crate) moments: Option<Vec<Disk>>,
    /// The reads, if they are wanted.
    pub(crate) reads: Option<Vec<Read>>,
    pub(crate) reads_count: usize,
    pub(crate) misread: Option<Misread>,
}

impl Disk {
    /// Makes an empty file.
    pub(crate) fn create(&mut self, name: &str) -> Result<usize, Failed> {
        self.call()?;
        self.files.push(File::default());
        let file = self.files.len() - 1;
        self.change_names(vec![(name.to_owned(), Some(file))]);
        Ok(file)
    }

    /// Reserves so many zeros.
    pub(crate) fn allocate(&mut self, file: usize, bytes: usize) -> Result<(), Failed> {
        self.call()?;
        let file = &mut self.files[file];
        Arc::make_mut(&mut file.cached).resize(bytes, 0);
        Arc::make_mut(&mut file.durable).resize(bytes, 0);
        Ok(())
    }

    pub(crate) fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), Failed> {
        let fault = self.next_call();
        let offset = offset as usize;
        assert!(offset.is_multiple_of(SECTOR_BYTES), "no sector is written in part");
        let sectors = bytes.len().div_ceil(SECTOR_BYTES);
        let whole = if fault == Some(Fault::Short) { sectors / 2 } else { sectors };
        let file = &mut self.files[file];
        for (place, sector) in bytes.chunks(SECTOR_BYTES).take(whole).enumerate() {
            let (at, given_up) = (offset + place * SECTOR_BYTES, fault == Some(Fault::Error));
            if !given_up {
                put(&mut file.cached, at, sector);
            }
            file.written.push(Written { number: at / SECTOR_BYTES, bytes: sector.into(), given_up });
        }
        fault.map_or(Ok(()), |_| Err(Failed))
    }

    /// Brings a file to the disk.
    pub(crate) fn sync(&mut self, file: usize) -> Result<(), Failed> {
        self.note_moment();
        let fault = self.next_call();
        let file = &mut self.files[file];
        if fault.is_some() {
            file.written.iter_mut().for_each(|sector| sector.given_up = true);
            return Err(Failed);
        }
        let (given_up, synced): (Vec<_>, Vec<_>) = file.written.drain(..).partition(|sector| sector.given_up);
        for sector in &synced {
            put(&mut file.durable, sector.number * SECTOR_BYTES, &sector.bytes);
        }
        let is_synced = |number: usize| synced.iter().any(|sector| sector.number == number);
        file.written = given_up.into_iter().filter(|sector| !is_synced(sector.number)).collect();
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<(), Failed> {
        self.call()?;
        let file = *self.names.get(from).ok_or(Failed)?;
        self.change_names(vec![(from.to_owned(), None), (to.to_owned(), Some(file))]);
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failed> {
        self.call()?;
        self.change_names(vec![(name.to_owned(), None)]);
        Ok(())
    }

    /// Brings the names to the disk.
    pub(crate) fn sync_directory(&mut self) -> Result<(), Failed> {
        self.note_moment();
        self.call()?;
        self.renamings.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub(crate) fn file(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// A file as the cache has it.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.file(name).map(|file| &self.files[file].cached[..])
    }

    /// Changes a byte of a file, in the cache and on the disk.
    pub(crate) fn flip(&mut self, name: &str, at: usize, bits: u8) {
        let file = &mut self.files[self.names[name]];
        for bytes in [&mut file.cached, &mut file.durable] {
            Arc::make_mut(bytes)[at] ^= bits;
        }
    }

    /// Puts other bytes into a file, in the cache and on the disk, as far as it reaches.
    pub(crate) fn replace(&mut self, name: &str, at: usize, bytes: &[u8]) {
        let file = &mut self.files[self.names[name]];
        for there in [&mut file.cached, &mut file.durable] {
            let end = there.len().min(at + bytes.len());
            Arc::make_mut(there)[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }

    pub(crate) fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> usize {
        let (number, offset) = (self.reads_count, offset as usize);
        self.reads_count += 1;
        let there = self.bytes(name).and_then(|file| file.get(offset..)).unwrap_or(&[]);
        let bytes = there.len().min(into.len());
        into[..bytes].copy_from_slice(&there[..bytes]);
        if let Some(reads) = &mut self.reads {
            reads.push(Read { name: name.to_owned(), offset, bytes });
        }
        if let Some(misread) = self.misread.take_if(|misread| misread.read == number) {
            let end = bytes.min(misread.at + misread.bytes.len());
            into[misread.at..end].copy_from_slice(&misread.bytes[..end - misread.at]);
        }
        bytes
    }

    /// What a crash in this moment can leave: each image once, by its fingerprint.
    pub(crate) fn images(&self) -> BTreeMap<u64, Self> {
        let units = self.units();
        let mut images: BTreeMap<u64, Self> = BTreeMap::new();
        for kept in subsets(&units) {
            let image = self.crashed(&units, &kept);
            images.entry(image.fingerprint()).or_insert(image);
        }
        images
    }

    /// One of them; `keeps` is asked once for all that can be lost.
    pub(crate) fn image(&self, mut keeps: impl FnMut() -> bool) -> Self {
        let units = self.units();
        let kept: Vec<bool> = units.iter().map(|_| keeps()).collect();
        self.crashed(&units, &kept)
    }

    /// The disk as the next process finds it when this one is killed: all is there, and nothing more is synced.
    pub(crate) fn killed(&self) -> Self {
        Self { calls: 0, fault: None, moments: None, ..self.clone() }
    }

    /// Whether nothing can be lost.
    pub(crate) fn is_synced(&self) -> bool {
        self.units().is_empty()
    }

    /// What tells one image from another: names that count, and their files.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut sum = Xxh3::new();
        for (name, file) in self.names.iter().filter(|(name, _)| counts(name)) {
            sum.update(name.as_bytes());
            sum.update(&self.files[*file].cached);
        }
        sum.digest()
    }

    fn call(&mut self) -> Result<(), Failed> {
        self.next_call().map_or(Ok(()), |_| Err(Failed))
    }

    fn next_call(&mut self) -> Option<Fault> {
        self.calls += 1;
        let call = self.calls - 1;
        self.fault.take_if(|(at, _)| *at == call).map(|(_, fault)| fault)
    }

    fn note_moment(&mut self) {
        if let Some(mut moments) = self.moments.take() {
            moments.push(self.clone());
            self.moments = Some(moments);
        }
    }

    fn change_names(&mut self, renaming: Renaming) {
        change(&mut self.names, &renaming);
        self.renamings.push(renaming);
    }

    /// What can be lost and is not lost on everybody: sectors of files that have a name that counts, or may get one.
    fn units(&self) -> Vec<Unit> {
        let renamed = self.renamings.iter().flatten().filter_map(|(name, file)| Some((name, (*file)?)));
        let named = self.durable_names.iter().map(|(name, file)| (name, *file)).chain(renamed);
        let seen: BTreeSet<usize> = named.filter(|(name, _)| counts(name)).map(|(_, file)| file).collect();
        let mut units = Vec::new();
        for file in seen {
            let File { durable, written, .. } = &self.files[file];
            for (place, sector) in written.iter().enumerate() {
                let at = sector.number * SECTOR_BYTES;
                let is_new = durable.get(at..at + sector.bytes.len()) != Some(&sector.bytes[..]);
                if is_new || written.iter().filter(|other| other.number == sector.number).count() > 1 {
                    units.push(Unit::Sector { file, place });
                }
            }
        }
        let matters = |renaming: &Renaming| renaming.iter().any(|(name, _)| counts(name));
        let places = (0..self.renamings.len()).filter(|place| matters(&self.renamings[*place]));
        units.extend(places.map(|place| Unit::Names { place }));
        units
    }

    fn crashed(&self, units: &[Unit], kept: &[bool]) -> Self {
        let mut image = Self {
            names: self.durable_names.clone(),
            log: self.log,
            told: self.told,
            files: self.files.clone(),
            ..Self::default()
        };
        for (unit, _) in units.iter().zip(kept).filter(|(_, kept)| **kept) {
            match *unit {
                Unit::Sector { file, place } => {
                    let sector = &self.files[file].written[place];
                    put(&mut image.files[file].durable, sector.number * SECTOR_BYTES, &sector.bytes);
                }
                Unit::Names { place } => change(&mut image.names, &self.renamings[place]),
            }
        }
        for file in &mut image.files {
            file.written.clear();
            file.cached = file.durable.clone();
        }
        image.durable_names = image.names.clone();
        image
    }
}

/// Files under other names are left alone by every start, and made anew by whoever wants them.
fn counts(name: &str) -> bool {
    !name.ends_with(".new")
}

fn change(names: &mut BTreeMap<String, usize>, renaming: &Renaming) {
    for (name, file) in renaming {
        match file {
            Some(file) => _ = names.insert(name.clone(), *file),
            None => _ = names.remove(name),
        }
    }
}

fn put(bytes: &mut Arc<Vec<u8>>, at: usize, sector: &[u8]) {
    let bytes = Arc::make_mut(bytes);
    let end = bytes.len().max(at + sector.len());
    bytes.resize(end, 0);
    bytes[at..at + sector.len()].copy_from_slice(sector);
}

/// What is kept of so many units: every subset of the sectors if they are few, else all from one on or up to one, all but one and one
/// alone; each with every subset of the names.
fn subsets(units: &[Unit]) -> Vec<Vec<bool>> {
    let sectors = units.iter().filter(|unit| matches!(unit, Unit::Sector { .. })).count();
    let names = units.len() - sectors;
    assert!(names < 8, "directories are synced often");
    let mut kept: Vec<Vec<bool>> = Vec::new();
    if sectors <= ALL_SUBSETS_MAX {
        kept.extend((0..1_u32 << sectors).map(|set| (0..sectors).map(|at| set >> at & 1 == 1).collect()));
    } else {
        for cut in 0..sectors {
            kept.push((0..sectors).map(|at| at < cut).collect());
            kept.push((0..sectors).map(|at| at >= cut).collect());
            kept.push((0..sectors).map(|at| at != cut).collect());
            kept.push((0..sectors).map(|at| at == cut).collect());
        }
    }
    let with_names = |sectors: &Vec<bool>, set: u32| {
        let names = (0..names).map(move |at| set >> at & 1 == 1);
        sectors.iter().copied().chain(names).collect()
    };
    kept.iter().flat_map(|sectors| (0..1_u32 << names).map(move |set| with_names(sectors, set))).collect()
}
