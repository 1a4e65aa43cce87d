//! How much memory is left, and when that is too little for more connections.
//!
//! What counts is what the system can still give: `MemAvailable`, and where control groups bound the node, of version 2 or of 1, what
//! the tightest of them leaves, files that are only cached not counted. A connection takes some 10 KB, most of it the
//! kernel's, which the process does not see in its own size.
//!
//! Nothing is believed for long, nor in which groups the node is: it is read five times a second, in which 3,000 connections come, 30 MB.

use std::fs;
use std::path::{Path, PathBuf};

use crate::groups::{self, Version};

/// The least that is kept free where the operator says nothing, in bytes: the connections of two seconds.
const RESERVE_MIN: u64 = 64 << 20;
/// The most: beyond this it helps nobody.
const RESERVE_MAX: u64 = 1 << 30;
/// Of all memory, this part is kept free in between.
const RESERVE_PART: u64 = 16;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Of the system, or the tightest bound on it.
    pub total: u64,
    /// What can still be had.
    pub left: u64,
}

/// Where it is read.
#[derive(Clone, Debug)]
pub struct Gauge {
    reserve: Option<u64>,
    meminfo: PathBuf,
    /// The control groups that the node is in.
    own: PathBuf,
    /// Where control groups are.
    root: PathBuf,
}

/// What a version of control groups calls what it says of memory.
struct Names {
    /// "max" is no bound, and no number.
    bound: &'static str,
    used: &'static str,
    /// In `memory.stat`: files that are only cached, and not used lately.
    cached: &'static str,
}

const VERSION_2: Names = Names { bound: "memory.max", used: "memory.current", cached: "inactive_file " };
const VERSION_1: Names =
    Names { bound: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_inactive_file " };

impl Gauge {
    /// Of this process; `reserve` is what the operator wants to be kept free, in bytes.
    #[must_use]
    pub fn of_this_process(reserve: Option<u64>) -> Self {
        Self { reserve, ..Self::below(Path::new("/")) }
    }

    /// Of a machine whose `/proc` and `/sys` are below `machine`, as the process sees it that reads them.
    #[must_use]
    pub fn below(machine: &Path) -> Self {
        let [meminfo, own, root] = ["proc/meminfo", groups::OWN, groups::ROOT].map(|path| machine.join(path));
        Self { reserve: None, meminfo, own, root }
    }

    /// What bounds the node, beside the system.
    fn bounds(&self) -> Vec<Memory> {
        let around = groups::around(&self.own, &self.root, "memory");
        let names = |version| if version == Version::Two { &VERSION_2 } else { &VERSION_1 };
        around.into_iter().filter_map(|(group, version)| read_group(&group, names(version))).collect()
    }

    /// What is there now. `None` where the system does not say, or nobody wants to know.
    #[must_use]
    pub fn read(&self) -> Option<Memory> {
        if self.reserve == Some(0) {
            return None;
        }
        let system = system(&fs::read_to_string(&self.meminfo).ok()?)?;
        Some(self.bounds().into_iter().fold(system, |least, bound| Memory {
            total: least.total.min(bound.total),
            left: least.left.min(bound.left),
        }))
    }

    /// How much is to be left, of so much.
    #[must_use]
    pub fn reserve(&self, memory: Memory) -> u64 {
        self.reserve.unwrap_or((memory.total / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX))
    }

    /// Whether it is too little for more connections. Where it was, there has to be a quarter more than enough, so that it
    /// does not change with each that goes.
    #[must_use]
    pub fn is_short(&self, memory: Memory, was_short: bool) -> bool {
        let reserve = self.reserve(memory);
        memory.left < if was_short { reserve.saturating_add(reserve / 4) } else { reserve }
    }
}

fn system(meminfo: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some(Memory { total: kib("MemTotal:")? << 10, left: kib("MemAvailable:")? << 10 })
}

fn read_group(group: &Path, names: &Names) -> Option<Memory> {
    let number =
        |name: &str| -> Option<u64> { fs::read_to_string(group.join(name)).ok()?.trim().parse().ok() };
    let total = number(names.bound)?;
    let used = number(names.used)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(names.cached)?.parse::<u64>().ok());
    Some(Memory { total, left: total.saturating_sub(used.saturating_sub(cached.unwrap_or(0))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_tightest_bound_counts_and_cached_files_do_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\n");
        let gauge = |own: &str| {
            write("own", own);
            Gauge {
                reserve: None,
                meminfo: root.join("meminfo"),
                own: root.join("own"),
                root: root.join("groups"),
            }
        };
        let system = Memory { total: 8192 * MIB, left: 4096 * MIB };
        assert_eq!(gauge("0::/\n").read(), Some(system), "no control group says anything");

        write("groups/outer/memory.max", &format!("{}\n", 1024 * MIB));
        write("groups/outer/memory.current", &format!("{}\n", 900 * MIB));
        write("groups/outer/memory.stat", &format!("anon 7\ninactive_file {}\n", 100 * MIB));
        write("groups/outer/inner/memory.max", "max\n");
        write("groups/outer/inner/memory.current", "7\n");
        let bound = Memory { total: 1024 * MIB, left: 224 * MIB };
        assert_eq!(gauge("0::/outer/inner\n").read(), Some(bound));
        assert_eq!(Gauge { reserve: Some(0), ..gauge("0::/outer/inner\n") }.read(), None);

        write("groups/memory/old/memory.limit_in_bytes", &format!("{}\n", 512 * MIB));
        write("groups/memory/old/memory.usage_in_bytes", &format!("{}\n", 500 * MIB));
        write(
            "groups/memory/old/memory.stat",
            &format!("inactive_file 7\ntotal_inactive_file {}\n", 50 * MIB),
        );
        let bound = Memory { total: 512 * MIB, left: 62 * MIB };
        assert_eq!(
            gauge("9:cpu:/outer\n4:hugetlb,memory:/old/inner\n0::/\n").read(),
            Some(bound),
            "version 1"
        );
    }

    #[test]
    fn a_shortage_begins_below_the_reserve_and_ends_well_above_it() {
        let nowhere = PathBuf::new;
        let gauge = |reserve| Gauge { reserve, meminfo: nowhere(), own: nowhere(), root: nowhere() };
        let left = |left| Memory { total: 100 * MIB, left };
        assert_eq!(gauge(None).reserve(left(0)), 64 * MIB, "at least");
        assert_eq!(gauge(None).reserve(Memory { total: 2048 * MIB, left: 0 }), 128 * MIB);
        assert_eq!(gauge(None).reserve(Memory { total: 1 << 50, left: 0 }), 1024 * MIB, "at most");
        let gauge = gauge(Some(40 * MIB));
        let cases = [(40, false, false), (39, false, true), (49, true, true), (50, true, false)];
        for (mib, was_short, is_short) in cases {
            assert_eq!(gauge.is_short(left(mib * MIB), was_short), is_short, "{mib}");
        }
    }
}
