//! What the doctor says of machines that are described by files.

use std::fs;

use gateway::doctor::{Check, Host, Plan, Report, Verdict, examine, probe};
use tempfile::TempDir;

/// A machine of two cores on which nothing is to be done, for [`PLAN`].
const SOUND: [(&str, &str); 23] = [
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/meminfo", "MemTotal:       24576000 kB\nMemAvailable:   20480000 kB\n"),
    ("proc/sys/net/core/somaxconn", "65535\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535\n"),
    ("proc/sys/net/ipv4/tcp_mem", "191934\t255912\t383868\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "3\n"),
    ("sys/class/net/eth0/device/vendor", "0x1af4\n"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth1/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth1/queues/rx-1/rps_cpus", "0\n"),
    ("sys/class/net/eth1/device/msi_irqs/23", "msix\n"),
    ("sys/class/net/eth1/device/msi_irqs/24", "msix\n"),
    ("sys/class/net/eth1/device/msi_irqs/25", "msix\n"),
    (
        "proc/interrupts",
        "      CPU0 CPU1\n 23: 0 0 PCI-MSIX virtio1-config\n 24: 7 0 PCI-MSIX virtio1-input.0\n 25: 0 7 PCI-MSIX virtio1-input.1\n",
    ),
    ("proc/irq/23/effective_affinity_list", "1\n"),
    ("proc/irq/24/effective_affinity_list", "0\n"),
    ("proc/irq/25/effective_affinity_list", "1\n"),
    ("proc/self/cgroup", "0::/system.slice/gatehouse.service\n"),
];

const PLAN: Plan = Plan { shards: 2, connections_max: 100_000, sockets_max: 53_445, backlog: 4096 };

/// A sound machine but for the files in `changed`; an empty one is not there.
fn machine(changed: &[(&str, &str)]) -> (TempDir, Vec<Check>) {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in SOUND.iter().chain(changed) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("ours");
        fs::write(&path, text).expect("ours");
        if text.is_empty() {
            fs::remove_file(&path).expect("ours");
        }
    }
    let checks = examine(&Host::described(root.path(), 2, Some(1 << 20), Ok(())), PLAN);
    (root, checks)
}

#[test]
fn a_sound_machine_has_nothing_to_mend() {
    let (_root, checks) = machine(&[]);
    assert_eq!(checks.len(), 13);
    assert_eq!(Report(&checks).verdict(), Verdict::Good, "{}", Report(&checks));
}

#[test]
fn each_weakness_is_found_alone_and_named_with_its_fix() {
    for (path, text, name, verdict) in [
        ("proc/meminfo", "MemTotal: 24576000 kB\nMemAvailable: 204800 kB", "memory", Verdict::Warning),
        ("proc/meminfo", "MemTotal: 512000 kB\nMemAvailable: 204800 kB", "memory", Verdict::Fault),
        ("proc/sys/net/core/somaxconn", "128", "somaxconn", Verdict::Warning),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512", "syn backlog", Verdict::Warning),
        ("proc/sys/net/ipv4/tcp_mem", "1000 2000 3000", "tcp_mem", Verdict::Warning),
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536", "conntrack", Verdict::Fault),
        ("proc/sys/net/ipv4/ip_local_port_range", "50000 60000", "outgoing ports", Verdict::Warning),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] never", "huge pages", Verdict::Warning),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "governor", Verdict::Warning),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
            "clock",
            Verdict::Warning,
        ),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0", "network queues", Verdict::Warning),
        ("proc/irq/25/effective_affinity_list", "0", "interrupts", Verdict::Warning),
    ] {
        let (_root, checks) = machine(&[(path, text)]);
        let bad: Vec<_> = checks.iter().filter(|check| check.verdict != Verdict::Good).collect();
        assert!(bad.len() == 1 && bad[0].name == name && bad[0].verdict == verdict, "{path}: {bad:?}");
        assert!(!bad[0].fix.is_empty());
        let report = Report(&checks).to_string();
        assert!(report.contains(&bad[0].fix) && report.contains(&bad[0].wanted), "{report}");
    }
}

/// A node in a service of 512 MiB refuses connections there, however much the machine has.
#[test]
fn memory_is_what_the_control_group_leaves() {
    let group = "sys/fs/cgroup/system.slice/gatehouse.service";
    let bound =
        [(format!("{group}/memory.max"), "536870912\n"), (format!("{group}/memory.current"), "1048576\n")];
    let bound: Vec<_> = bound.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let (_root, checks) = machine(&bound);
    let memory = checks.iter().find(|check| check.name == "memory").expect("it is looked at");
    assert_eq!((memory.verdict, memory.found.as_str()), (Verdict::Fault, "511 MiB available of 512"));
}

#[test]
fn what_a_kernel_does_not_have_is_no_mistake() {
    let absent: Vec<_> = SOUND.iter().map(|(path, _)| (*path, "")).collect();
    let (_root, checks) = machine(&absent);
    assert_eq!(Report(&checks).verdict(), Verdict::Good, "{}", Report(&checks));
}

#[test]
fn a_node_that_would_not_start_is_a_fault() {
    let root = tempfile::tempdir().expect("a directory");
    let missing = Err("multishot receive is not available".to_owned());
    let checks = examine(&Host::described(root.path(), 2, Some(1024), missing), PLAN);
    let faults: Vec<_> =
        checks.iter().filter(|check| check.verdict == Verdict::Fault).map(|check| check.name).collect();
    assert_eq!(faults, ["io_uring", "file limit"]);
}

#[test]
fn the_disk_is_measured_and_left_as_it_was() {
    let data = tempfile::tempdir().expect("a directory");
    let check = probe(data.path());
    assert!(check.verdict != Verdict::Fault && check.found.contains("p99"), "{check:?}");
    assert_eq!(fs::read_dir(data.path()).expect("ours").count(), 0);
    assert_eq!(probe(&data.path().join("none")).verdict, Verdict::Fault);
}
