//! The control groups that the node is in, which bound what it may have of memory and of cores.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are, on a machine.
pub(crate) const ROOT: &str = "sys/fs/cgroup";

/// Where a process finds in which it is.
pub(crate) const OWN: &str = "proc/self/cgroup";

/// Of control groups; each calls things its own way, and a system may have both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    One,
    Two,
}

/// The groups that bound what a process has of `controller`: its own, and those around that. The root group has no bound, and in a container it
/// may be what is seen of another.
pub(crate) fn around(own: &Path, root: &Path, controller: &str) -> Vec<(PathBuf, Version)> {
    let own = fs::read_to_string(own).unwrap_or_default();
    let of_it = own.lines().filter_map(|line| {
        // Number of the hierarchy, its controllers, and the group; version 2 has no number and no names.
        let (controllers, group) = line.split_once(':')?.1.split_once(":/")?;
        let is_of_it = controllers.split(',').any(|one| one == controller);
        match controllers {
            "" => Some((root.to_owned(), group, Version::Two)),
            _ => is_of_it.then(|| (root.join(controller), group, Version::One)),
        }
    });
    let all = of_it.flat_map(|(root, group, version)| {
        let around = Path::new(group).ancestors();
        around.map(|group| (root.join(group), version)).collect::<Vec<_>>()
    });
    all.collect()
}
