//! What /proc says about processes and about the kernel's memory.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Context;
use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// Resident memory of a process, by its number or `self`.
pub(crate) fn resident_bytes(process: &str) -> anyhow::Result<u64> {
    kibibytes(&format!("/proc/{process}/status"), "VmRSS")
}

/// Files that the system keeps in memory.
pub(crate) fn cached_bytes() -> anyhow::Result<u64> {
    kibibytes("/proc/meminfo", "Cached")
}

/// A node and the kernel under it, at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Reading {
    pub(crate) resident_bytes: u64,
    /// Of all its threads, in the system and outside, those that have ended among them: workers of a ring come and go. In hundredths of a
    /// second.
    pub(crate) cpu: Duration,
    /// Objects of the kernel: sockets, their files, and the requests of a ring. Of both ends of a connection that stays
    /// on this machine, and of everybody else: whoever looks into `/proc/PID/fd` of the workers meanwhile adds an inode a
    /// connection.
    pub(crate) slab_bytes: u64,
}

impl Reading {
    pub(crate) fn take(pid: u32) -> anyhow::Result<Self> {
        let stat = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&stat).with_context(|| format!("{stat}: there is no such process"))?;
        let cpu = cpu_in(&text).with_context(|| format!("{stat} is not understood"))?;
        let slab_bytes = kibibytes("/proc/meminfo", "Slab")?;
        Ok(Self { resident_bytes: resident_bytes(&pid.to_string())?, cpu, slab_bytes })
    }
}

/// User and system time in `/proc/PID/stat` (proc(5)): fields 14 and 15. The name before them may hold spaces and brackets.
fn cpu_in(stat: &str) -> Option<Duration> {
    let mut behind_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = behind_name.next()?.ok()? + behind_name.next()?.ok()?;
    Some(Duration::from_secs(ticks) / clock_ticks_per_second() as u32)
}

/// The process that holds a lock on a file here; `None` where the system knows none.
pub(crate) fn holder_of(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, inode)
}

/// The process here that listens at a port; `None` where it is on no socket of its own, as listeners of a ring are not.
pub(crate) fn listener_of(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listening_in(table, port))?;
    let socket = format!("socket:[{inode}]");
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.into_iter().find(|process: &u32| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    })
}

/// The inode of the socket that listens (`0A`) at a port, in a line like
/// `0: 0100007F:1BBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 6285 1 ...`.
fn listening_in(table: &str, port: u16) -> Option<u64> {
    let here = format!(":{port:04X}");
    let line = table.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&here)) && words.nth(1) == Some("0A")
    })?;
    line.split_whitespace().nth(9)?.parse().ok()
}

/// A line like `1: FLOCK  ADVISORY  WRITE 8661 fe:00:6283275 0 EOF`.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    let inode = format!(":{inode}");
    let line = locks.lines().find(|line| line.split_whitespace().any(|word| word.ends_with(&inode)))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

/// A line like `Slab:  123 kB`, in bytes.
fn kibibytes(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("{path} could not be read"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(number.with_context(|| format!("{path} has no {name}"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_lock_is_found_by_the_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 8661 fe:00:6283275 0 EOF\n";
        assert_eq!(holder_in(locks, 6_283_275), Some(8661));
        assert_eq!(holder_in(locks, 83_275), None);
        let file = std::env::temp_dir().join(format!("loadgen-lock-{}", std::process::id()));
        let held = fs::File::create(&file).expect("a file");
        assert_eq!(holder_of(&file), None);
        held.lock().expect("nobody else knows it");
        assert_eq!(holder_of(&file), Some(std::process::id()));
        fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn whoever_listens_is_found_by_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        assert_eq!(listener_of(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(listener_of(port), None);
    }

    #[test]
    fn time_of_threads_that_have_ended_is_counted() {
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194304 900 0 0 0 250 150 0 0 20 0 9 0 1 1 1 0";
        assert_eq!(cpu_in(stat), Some(Duration::from_secs(4)));
        assert_eq!(cpu_in("12 (cut) S 1"), None);
        let taken = || Reading::take(std::process::id()).expect("/proc is there").cpu;
        let before = taken();
        let work = std::thread::spawn(move || while taken() < before + Duration::from_millis(100) {});
        work.join().expect("it ends");
        assert!(taken() >= before + Duration::from_millis(100));
    }

    #[test]
    fn this_process_has_memory_and_has_run() {
        let reading = Reading::take(std::process::id()).expect("/proc is there");
        assert!(reading.resident_bytes > 0 && reading.slab_bytes > 0);
        assert!(Reading::take(u32::MAX).is_err());
    }
}
