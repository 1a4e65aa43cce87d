//! How much of its time the node may run. Where a control group has used up its share of the cores, the kernel lets none of its threads run until
//! the next period, of a tenth of a second as systemd sets it: everything is late by that, and nothing in the node can see why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::groups;

/// Periods in a hundred from which on it is said.
const MANY: u64 = 25;

/// And below which it is over.
const FEW: u64 = 10;

/// Where it is read, and what stood there the last time.
#[derive(Debug)]
pub struct Quota {
    own: PathBuf,
    root: PathBuf,
    /// By group.
    before: BTreeMap<PathBuf, Periods>,
    is_short: bool,
}

/// Of a group since it was made.
#[derive(Clone, Copy, Debug, Default)]
struct Periods {
    all: u64,
    cut: u64,
}

impl Quota {
    /// Of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let [own, root] = [groups::OWN, groups::ROOT].map(|path| Path::new("/").join(path));
        Self { own, root, before: BTreeMap::new(), is_short: false }
    }

    /// In how many of a hundred periods the node was stopped since it was asked the last time, by the tightest group around it; 0 where nothing
    /// bounds it.
    pub fn read(&mut self) -> u64 {
        let around = groups::around(&self.own, &self.root, "cpu");
        let now: BTreeMap<PathBuf, Periods> = around
            .into_iter()
            .filter_map(|(group, _)| periods(&group).map(|periods| (group, periods)))
            .collect();
        let shares = now.iter().filter_map(|(group, now)| {
            let before = self.before.get(group)?;
            let (all, cut) = (now.all.checked_sub(before.all)?, now.cut.saturating_sub(before.cut));
            (cut * 100).checked_div(all)
        });
        let most = shares.max().unwrap_or(0);
        self.before = now;
        most
    }

    /// Takes what was read: whether the node has become short of cores by it, or is not any more.
    pub fn has_changed(&mut self, percent: u64) -> Option<bool> {
        let is_short = if self.is_short { percent >= FEW } else { percent >= MANY };
        (std::mem::replace(&mut self.is_short, is_short) != is_short).then_some(is_short)
    }
}

/// The same names in both versions.
fn periods(group: &Path) -> Option<Periods> {
    let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let number = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(Periods { all: number("nr_periods ")?, cut: number("nr_throttled ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts_since_it_was_asked_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("groups");
        let own = directory.path().join("own");
        let write = |group: &str, all: u64, cut: u64| {
            let group = root.join(group);
            fs::create_dir_all(&group).expect("a directory");
            let text = format!("usage_usec 7\nnr_periods {all}\nnr_throttled {cut}\n");
            fs::write(group.join("cpu.stat"), text).expect("a file");
        };
        fs::write(&own, "4:memory:/elsewhere\n0::/outer/inner\n").expect("a file");
        let mut quota = Quota { own, root: root.clone(), before: BTreeMap::new(), is_short: false };
        assert_eq!(quota.read(), 0, "nothing bounds it");
        write("outer/inner", 1_000, 900);
        write("outer", 1_000, 0);
        assert_eq!(quota.read(), 0, "what was before is not of now");
        write("outer/inner", 1_100, 910);
        write("outer", 1_100, 40);
        assert_eq!(quota.read(), 40);
        assert_eq!(quota.read(), 0, "no period has passed");
        let changes = [24, 25, 90, 10, 9, 24].map(|percent| quota.has_changed(percent));
        assert_eq!(changes, [None, Some(true), None, None, Some(false), None]);
    }
}
