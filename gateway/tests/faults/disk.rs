//! A disk of a test's own: an ext4 in a file, small enough to fill and free to lose its power.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _, stderr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    process::geteuid,
};
use tempfile::TempDir;

use crate::node::directory;

/// Two segments of 256 MiB fit, and what the file system itself takes.
const DISK_BYTES: u64 = 640 << 20;

/// A file system in a file. Unmounted when dropped; whatever uses it is dropped before.
pub(crate) struct Disk {
    _directory: TempDir,
    image: PathBuf,
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// It takes nothing smaller than blocks of this size.
    block_bytes: u32,
}

impl Disk {
    /// A new, empty one. `None`, said aloud, where this user may not mount.
    pub(crate) fn mount() -> Option<Self> {
        Self::of_blocks(512)
    }

    /// One that takes nothing smaller than blocks of this size.
    pub(crate) fn of_blocks(block_bytes: u32) -> Option<Self> {
        match Self::try_mount(block_bytes) {
            Ok(disk) => Some(disk),
            Err(reason) if !geteuid().is_root() => {
                // Not by a macro: what those print is shown only when a test fails.
                let _ = writeln!(stderr(), "not run: mounting a small file system needs root ({reason})");
                None
            }
            Err(reason) => panic!("root cannot mount a small file system: {reason}"),
        }
    }

    fn try_mount(block_bytes: u32) -> Result<Self, String> {
        let directory = directory();
        let (image, root) = (directory.path().join("image"), directory.path().join("root"));
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        made.and_then(|()| fs::create_dir(&root)).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        mount_image(&image, &root, block_bytes, "rw")?;
        Ok(Self { _directory: directory, image, root, block_bytes })
    }

    /// All of it is on another disk now, which takes nothing smaller than blocks of this size. Nothing may have a file open.
    pub(crate) fn move_to_blocks_of(&mut self, block_bytes: u32) {
        self.block_bytes = block_bytes;
        self.mount_again("rw");
    }

    /// The power fails: what was not synced is gone, and every write from now on is an error (`FS_IOC_SHUTDOWN` without
    /// flushing the journal; Perl is in every Debian, and makes the call without unsafe code of ours).
    pub(crate) fn cut_power(&self) {
        self.power_switch().cut();
    }

    /// What cuts the power at once when it is told to: nothing has to be started then.
    pub(crate) fn power_switch(&self) -> PowerSwitch {
        let call = "open(my $f, '<', $ARGV[0]) or die $!; my $how = pack('L', 2); <STDIN>; \
                    ioctl($f, 0x8004587d, $how) or die $!";
        let mut command = Command::new("perl");
        command.args(["-e", call]).arg(&self.root).stdin(Stdio::piped());
        PowerSwitch(command.spawn().expect("Perl is in every Debian"))
    }

    /// The file system takes no more writes, as after an error that it found in itself. Not as `mount` makes it read-only: that
    /// is refused while somebody writes.
    pub(crate) fn make_read_only(&self) {
        run("mount", &["-o", "remount,abort"], &[&self.root]).expect("ext4 can be aborted");
    }

    /// The power is back, and the machine has started again. Nothing may have a file open.
    pub(crate) fn restore_power(&self) {
        self.mount_again("rw");
    }

    /// The same, after an orderly stop, for reading alone.
    pub(crate) fn mount_for_reading(&self) {
        self.mount_again("ro");
    }

    fn mount_again(&self, options: &str) {
        run("umount", &[], &[&self.root]).expect("nobody uses it");
        mount_image(&self.image, &self.root, self.block_bytes, options).expect("its journal is sound");
    }

    /// Somebody takes all that is left, to the last block.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.root.join("filling")).expect("an inode");
        let block = [1; 4096];
        let full = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    /// Bytes that a file may take.
    pub(crate) fn free_bytes(&self) -> u64 {
        let stat = statvfs(&self.root).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }
}

fn mount_image(image: &Path, root: &Path, block_bytes: u32, options: &str) -> Result<(), String> {
    let block_bytes = block_bytes.to_string();
    let device = run("losetup", &["--find", "--show", "--sector-size", &block_bytes], &[image])?;
    let mounted = run("mount", &["-o", options], &[Path::new(&device), root]);
    // While it is mounted it stays; then it goes by itself.
    run("losetup", &["--detach"], &[Path::new(&device)])?;
    mounted.map(drop)
}

/// The switch of a disk's power; dropped, it was not used.
pub(crate) struct PowerSwitch(Child);

impl PowerSwitch {
    /// The power fails.
    pub(crate) fn cut(mut self) {
        writeln!(self.0.stdin.take().expect("it is piped")).expect("it waits for a line");
        assert!(self.0.wait().expect("it is ours").success(), "ext4 can be shut down");
    }
}

impl Drop for PowerSwitch {
    fn drop(&mut self) {
        // Fails when it has ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that leaves a disk little room.
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    /// One that leaves `left_bytes`.
    pub(crate) fn lay(disk: &Disk, left_bytes: u64) -> Self {
        let path = disk.root.join("ballast");
        let file = File::create(&path).expect("an empty disk");
        fallocate(&file, FallocateFlags::empty(), 0, disk.free_bytes() - left_bytes).expect("room");
        Self(path)
    }

    pub(crate) fn remove(self) {
        fs::remove_file(&self.0).expect("it was made");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["--lazy"], &[&self.root]) {
            eprintln!("{} stays mounted: {error}", self.root.display());
        }
    }
}

/// What it says, if it succeeds.
fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
