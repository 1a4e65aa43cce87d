//! `tuning/spread-queues` on the files of a machine that is not there.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const RPS: &str = "sys/class/net/eth7/queues/rx-0/rps_cpus";

/// A machine with one card that is up, with one queue in each direction, and one that is down.
fn machine(cores: usize) -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    };
    let processors: String = (0..cores).map(|core| format!("processor\t: {core}\n\n")).collect();
    write("proc/cpuinfo", &processors);
    write(
        "proc/interrupts",
        "           CPU0       CPU1\n 40:          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config\n \
         41:          7          8 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n \
         42:          1          2 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0\n \
         43:          1          2 PCI-MSIX-0000:00:03.0   3-edge      another-0\n",
    );
    for number in [40, 41, 42] {
        write(&format!("proc/irq/{number}/smp_affinity_list"), "0-3\n");
        write(&format!("sys/devices/pci/msi_irqs/{number}"), "msix\n");
    }
    write(RPS, "0\n");
    write("sys/class/net/eth7/operstate", "up\n");
    write("sys/class/net/eth8/operstate", "down\n");
    write("sys/class/net/lo/operstate", "up\n");
    fs::create_dir_all(root.path().join("sys/devices/pci/virtio2")).expect("made");
    let device = root.path().join("sys/devices/pci/virtio2");
    for card in ["eth7", "eth8"] {
        symlink(&device, root.path().join(format!("sys/class/net/{card}/device"))).expect("linked");
    }
    root
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/spread-queues")
}

#[track_caller]
fn spread(root: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(script()).arg("--root").arg(root).args(arguments).output();
    let output = output.expect("bash is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).expect("it is there").trim().to_owned()
}

#[test]
fn a_single_queue_is_spread_by_the_system_and_nothing_is_written_unasked() {
    let root = machine(4);
    let root = root.path();
    let (output, text) = spread(root, &[]);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "echo f > /sys/class/net/eth7/queues/rx-0/rps_cpus    # was 0: 1 receive queues for 4 cores",
        "echo 0 > /proc/irq/41/smp_affinity_list    # was 0-3: interrupt of virtio2-input.0",
        "echo 0 > /proc/irq/42/smp_affinity_list    # was 0-3: interrupt of virtio2-output.0",
        "# echo 0-3 > /proc/irq/41/smp_affinity_list",
        "# nothing was written: --apply does",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
    assert!(!text.contains("/irq/40/") && !text.contains("/irq/43/") && !text.contains("eth8"), "{text}");
    assert_eq!((read(root, RPS), read(root, "proc/irq/41/smp_affinity_list")), ("0".into(), "0-3".into()));
}

#[test]
fn what_is_applied_is_there_once_and_can_be_undone() {
    let root = machine(40);
    let root = root.path();
    let (output, text) = spread(root, &["--apply", "eth7"]);
    assert!(output.status.success() && text.contains("# written"), "{output:?}");
    assert_eq!(read(root, RPS), "ff,ffffffff");
    assert_eq!(read(root, "proc/irq/42/smp_affinity_list"), "0");
    // As the kernel writes it.
    fs::write(root.join(RPS), "00000000,000000ff,ffffffff\n").expect("written");
    let (_, again) = spread(root, &["--apply"]);
    assert!(again.starts_with("# nothing to do for eth7"), "{again}");

    let undo = text.lines().filter_map(|line| line.strip_prefix("# echo "));
    let undo: Vec<(&str, &str)> = undo.filter_map(|line| line.split_once(" > /")).collect();
    assert_eq!(undo.len(), 3, "{text}");
    for (value, path) in undo {
        fs::write(root.join(path), value).expect("written");
    }
    assert_eq!((read(root, RPS), read(root, "proc/irq/42/smp_affinity_list")), ("0".into(), "0-3".into()));
}

#[test]
fn a_card_that_is_not_there_is_named() {
    let root = machine(2);
    let (output, _) = spread(root.path(), &["eth9"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no network card eth9"), "{said}");
}
