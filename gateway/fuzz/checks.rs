//! What must hold for any bytes at all in the files that are text. Shared by the fuzz targets and, over their seeds and over noise, by a
//! test on stable.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each target takes one")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Component, Path};

use gateway::erasures::{ERASURES_FILE, ErasuresFile};
use gateway::logtool::manifest::Manifest;
use gateway::revocations::{REVOCATIONS_FILE, RevocationsFile};

/// A manifest is refused, or names each file once, all of them within their directories and of a size that can be added up; and says the
/// same when it is written again. This and the next two say whether they were understood.
pub(crate) fn backup_manifest(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(manifest) = Manifest::parse(text) else { return false };
    let mut paths = BTreeSet::new();
    for entry in manifest.files() {
        assert!(is_within(&entry.path) && is_within(&entry.file), "{entry:?}");
        assert!(paths.insert(&entry.path), "{entry:?} stands there twice");
    }
    assert!(manifest.files().iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.bytes)).is_some());
    let again = manifest.to_text().expect("it is text");
    assert_eq!(Manifest::parse(&again).expect("it was sound"), manifest);
    true
}

/// A name, or a directory and a name.
fn is_within(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty()
        && parts.clone().count() <= 2
        && parts.into_iter().all(|part| matches!(part, Component::Normal(_)))
}

/// A list is refused in words that name its file, or understood: and then it says the same when it is written again.
pub(crate) fn revocations(bytes: &[u8]) -> bool {
    list(bytes, REVOCATIONS_FILE, |directory| {
        let file = RevocationsFile::of(directory);
        file.read().map(|read| (read.clone(), file.write(&read)))
    })
}

/// As [`revocations`].
pub(crate) fn erasures(bytes: &[u8]) -> bool {
    list(bytes, ERASURES_FILE, |directory| {
        let file = ErasuresFile::of(directory);
        file.read().map(|read| (read.clone(), file.write(&read)))
    })
}

fn list<T: Debug, E: Debug>(
    bytes: &[u8],
    name: &str,
    read_and_write: impl Fn(&Path) -> Result<(Vec<T>, std::io::Result<()>), E>,
) -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(name), bytes).expect("written");
    match read_and_write(directory.path()) {
        Err(refused) => {
            assert!(format!("{refused:?}").contains(name), "{refused:?}");
            false
        }
        Ok((read, written)) => {
            written.expect("written");
            let (again, _) = read_and_write(directory.path()).expect("it was written by this program");
            assert_eq!(in_order(&again), in_order(&read));
            true
        }
    }
}

/// A list whose order means nothing is written in one of its own.
fn in_order<T: Debug>(list: &[T]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|entry| format!("{entry:?}")).collect();
    list.sort_unstable();
    list
}
