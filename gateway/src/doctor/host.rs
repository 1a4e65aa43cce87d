//! What the kernel says about this machine, by path.

use std::fs;
use std::path::{Path, PathBuf};

use crate::memory::{Gauge, Memory};

/// A machine, seen through its `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// Cores that this process may use.
    pub cores: usize,
    /// Files that this process may open; `None`: any number.
    pub files_max: Option<u64>,
    /// What is missing for the ring, in a sentence with its remedy.
    pub ring: Result<(), String>,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            // What it may raise its own limit to, as a node does.
            files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
            ring: ring::probe().map_err(|missing| missing.to_string()),
        }
    }

    /// A machine that is described by the files below `root`.
    #[must_use]
    pub fn described(root: &Path, cores: usize, files_max: Option<u64>, ring: Result<(), String>) -> Self {
        Self { root: root.to_owned(), cores, files_max, ring }
    }

    /// A file's text without the line end; `None` when this kernel has no such file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds numbers with spaces between them.
    pub(super) fn numbers(&self, path: &str) -> Option<Vec<u64>> {
        self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    /// The choice in brackets: `always [madvise] never`.
    pub(super) fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }

    /// What a node that runs as the doctor does can have of memory.
    pub(super) fn memory(&self) -> Option<Memory> {
        Gauge::below(&self.root).read()
    }

    /// Names in a directory, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }
}
