//! What is looked at, and what would be good.

use super::{Check, Host, Verdict, network};
use crate::config::{Config, Layers};
use crate::layout::Layout;
use crate::memory::Memory;

/// Memory of one idle connection, rounded up: the node's end, at most 2.6 KiB measured, and the kernel's end with an armed receive, 4.7 KiB.
const CONNECTION_BYTES: u64 = 8 << 10;

/// Pages of the kernel's TCP accounting.
const PAGE_BYTES: u64 = 4096;

/// What a node is meant to hold.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Data-plane threads.
    pub shards: u64,
    /// Connections of all of them.
    pub connections_max: u64,
    /// Sockets of each.
    pub sockets_max: u64,
    /// Connections that a listener asks the kernel to queue.
    pub backlog: u64,
}

impl Plan {
    /// What `config` says, on a machine of so many cores.
    #[must_use]
    pub fn of(config: &Config, host: &Host) -> Self {
        let layout = Layout::of(config, host.cores, host.files_max);
        Self {
            shards: u64::from(layout.shards),
            connections_max: u64::from(layout.connections_max),
            sockets_max: u64::from(layout.sockets_each),
            backlog: u64::from(ring::ListenOptions::default().backlog),
        }
    }
}

/// Everything that can be seen without writing.
#[must_use]
pub fn examine(host: &Host, plan: Plan) -> Vec<Check> {
    let checks = [
        Some(ring(host)),
        Some(files(host, plan)),
        memory(host, plan),
        backlog(host, plan, "somaxconn", "net.core.somaxconn"),
        backlog(host, plan, "syn backlog", "net.ipv4.tcp_max_syn_backlog"),
        tcp_memory(host, plan),
        conntrack(host, plan),
        ports(host),
        huge_pages(host),
        governor(host),
        clock(host),
        network::queues(host),
        network::interrupts(host),
    ];
    checks.into_iter().flatten().collect()
}

/// Whether all variables of the environment that look like ours are; nothing where there is none.
pub fn variables(layers: &Layers) -> Option<Check> {
    let unknown: Vec<&str> = layers.unknown_variables().collect();
    let names = unknown.join(", ");
    (!layers.environment.is_empty()).then(|| Check {
        name: "variables",
        verdict: verdict(unknown.is_empty(), Verdict::Warning),
        found: match unknown.len() {
            0 => format!("{} that are ours", layers.environment.len()),
            _ => format!("{names}: none of ours"),
        },
        wanted: "GATEHOUSE_ and the name of a setting".to_owned(),
        why: "one that is misspelt does nothing, and the setting keeps its default",
        fix: format!("unset {}, or write the setting that is meant", names.replace(',', "")),
    })
}

pub(super) fn verdict(good: bool, otherwise: Verdict) -> Verdict {
    if good { Verdict::Good } else { otherwise }
}

fn sysctl(key: &str) -> String {
    format!("proc/sys/{}", key.replace('.', "/"))
}

fn set(key: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {key}={value}, and the same line in /etc/sysctl.d/60-gatehouse.conf")
}

fn ring(host: &Host) -> Check {
    let disabled = host.number("proc/sys/kernel/io_uring_disabled").is_some_and(|mode| mode > 0);
    let fix =
        if disabled { set("kernel.io_uring_disabled", 0) } else { "a kernel of 6.8 or newer".to_owned() };
    Check {
        name: "io_uring",
        verdict: verdict(host.ring.is_ok(), Verdict::Fault),
        found: host.ring.clone().map_or_else(|missing| missing, |()| "everything is there".to_owned()),
        wanted: "every feature that the node uses".to_owned(),
        why: "sockets and files are driven through it alone",
        fix,
    }
}

fn files(host: &Host, plan: Plan) -> Check {
    let wanted = plan.sockets_max;
    Check {
        name: "file limit",
        verdict: verdict(host.files_max.is_none_or(|limit| limit >= wanted), Verdict::Fault),
        found: host.files_max.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string()),
        wanted: format!("at least {wanted} for each of {} shards: its share of connections_max", plan.shards),
        why: "the kernel bounds a shard's table of sockets by it; the node refuses to start below",
        fix: format!("LimitNOFILE={wanted} in the unit, or ulimit -n {wanted}, or a lower connections_max"),
    }
}

fn memory(host: &Host, plan: Plan) -> Option<Check> {
    let Memory { total, left: available } = host.memory()?;
    let planned = plan.connections_max * CONNECTION_BYTES;
    let good = verdict(planned <= available, Verdict::Warning);
    let mib = |bytes: u64| bytes >> 20;
    Some(Check {
        name: "memory",
        verdict: if planned > total { Verdict::Fault } else { good },
        found: format!("{} MiB available of {}", mib(available), mib(total)),
        wanted: format!("{} MiB for {} idle connections", mib(planned), plan.connections_max),
        why: "an idle connection costs 8 KiB, most of it in the kernel; what waits for slow readers comes on top, and a control group bounds all of it",
        fix: "a lower connections_max, more memory, or a higher MemoryMax in the unit".to_owned(),
    })
}

fn backlog(host: &Host, plan: Plan, name: &'static str, key: &str) -> Option<Check> {
    let found = host.number(&sysctl(key))?;
    Some(Check {
        name,
        verdict: verdict(found >= plan.backlog, Verdict::Warning),
        found: found.to_string(),
        wanted: format!("at least {}, what the node asks for", plan.backlog),
        why: "when many connect at once, the kernel drops what does not fit",
        fix: set(key, 65_535),
    })
}

/// `tcp_mem` is low, pressure, high, in pages, and counts queued data alone.
fn tcp_memory(host: &Host, plan: Plan) -> Option<Check> {
    let pages = host.numbers(&sysctl("net.ipv4.tcp_mem"))?;
    let pressure = pages.get(1)? * PAGE_BYTES;
    // One connection in eight with a page waiting: a storm that everybody comes back from.
    let wanted = plan.connections_max * PAGE_BYTES / 8;
    let high = wanted / PAGE_BYTES * 2;
    Some(Check {
        name: "tcp_mem",
        verdict: verdict(pressure >= wanted, Verdict::Warning),
        found: format!("pressure at {} MiB of queued data", pressure >> 20),
        wanted: format!("at least {} MiB", wanted >> 20),
        why: "above it the kernel shrinks the windows of all connections",
        fix: set("net.ipv4.tcp_mem", format_args!("\"{} {} {high}\"", high / 4, high / 2)),
    })
}

fn conntrack(host: &Host, plan: Plan) -> Option<Check> {
    let key = "net.netfilter.nf_conntrack_max";
    let found = host.number(&sysctl(key))?;
    let wanted = plan.connections_max + plan.connections_max / 4;
    Some(Check {
        name: "conntrack",
        verdict: verdict(found >= wanted, Verdict::Fault),
        found: found.to_string(),
        wanted: format!("at least {wanted}, a quarter more than connections"),
        why: "a full table drops connections, and nobody but the kernel's log says so",
        fix: format!("{}; or no tracking of the port (nft: notrack)", set(key, wanted)),
    })
}

fn ports(host: &Host) -> Option<Check> {
    let key = "net.ipv4.ip_local_port_range";
    let range = host.numbers(&sysctl(key))?;
    let count = range.get(1)?.saturating_sub(*range.first()?) + 1;
    Some(Check {
        name: "outgoing ports",
        verdict: verdict(count >= 16_384, Verdict::Warning),
        found: format!("{count} for each pair of addresses"),
        wanted: "28,000 as the kernel has it; 60,000 where loadgen runs".to_owned(),
        why: "a load generator has one connection a port; a node needs few",
        fix: set(key, "\"1024 65535\""),
    })
}

fn huge_pages(host: &Host) -> Option<Check> {
    let found = host.choice("sys/kernel/mm/transparent_hugepage/enabled")?;
    Some(Check {
        name: "huge pages",
        verdict: verdict(found != "always", Verdict::Warning),
        wanted: "madvise or never".to_owned(),
        found,
        why: "`always` backs sparse tables with 2 MiB pages: memory a connection grows, and compaction stalls shards",
        fix: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".to_owned(),
    })
}

fn governor(host: &Host) -> Option<Check> {
    let found = host.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?;
    Some(Check {
        name: "governor",
        verdict: verdict(found == "performance", Verdict::Warning),
        found,
        wanted: "performance".to_owned(),
        why: "a core that has clocked down answers the first message late",
        fix: "cpupower frequency-set -g performance".to_owned(),
    })
}

fn clock(host: &Host) -> Option<Check> {
    let found = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let good =
        ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"].contains(&found.as_str());
    Some(Check {
        name: "clock",
        verdict: verdict(good, Verdict::Warning),
        found,
        wanted: "tsc, or the hypervisor's clock".to_owned(),
        why: "a shard reads the clock every turn; other sources cost a system call each",
        fix: "tsc=reliable on the kernel's command line, if the machine's is".to_owned(),
    })
}
