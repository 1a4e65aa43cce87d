//! Whether packets come by more than one core.

use std::collections::BTreeSet;

use super::checks::verdict;
use super::{Check, Host, Verdict};

/// What has a device behind it is a card; the others are the kernel's own.
fn cards(host: &Host) -> Vec<String> {
    let is_card = |card: &String| !host.names(&format!("sys/class/net/{card}/device")).is_empty();
    host.names("sys/class/net").into_iter().filter(is_card).collect()
}

fn names(cards: &[&String]) -> String {
    cards.iter().map(|card| card.as_str()).collect::<Vec<_>>().join(", ")
}

/// Network cards whose packets all go through one core.
pub(super) fn queues(host: &Host) -> Option<Check> {
    let cards = cards(host);
    let receiving = |card: &String| {
        let queues = host.names(&format!("sys/class/net/{card}/queues"));
        queues.into_iter().filter(|queue| queue.starts_with("rx-")).collect::<Vec<_>>()
    };
    // A mask of cores, in words of hexadecimal digits.
    let spreads = |card: &String, queue: &String| {
        let mask = host.text(&format!("sys/class/net/{card}/queues/{queue}/rps_cpus"));
        mask.is_none_or(|mask| mask.chars().any(|digit| digit.is_ascii_hexdigit() && digit != '0'))
    };
    let is_single = |card: &&String| {
        let queues = receiving(card);
        queues.len() == 1 && !spreads(card, &queues[0])
    };
    let single: Vec<&String> = cards.iter().filter(is_single).collect();
    let good = single.is_empty() || host.cores == 1;
    (!cards.is_empty()).then(|| Check {
        name: "network queues",
        verdict: verdict(good, Verdict::Warning),
        found: if good {
            "spread over cores".to_owned()
        } else {
            format!("one queue and no RPS: {}", names(&single))
        },
        wanted: "a receive queue for each shard, or RPS".to_owned(),
        why: "all packets go through one core, which is also a shard's",
        fix: match single.first() {
            Some(card) => format!(
                "echo {:x} > /sys/class/net/{card}/queues/rx-0/rps_cpus",
                (1_u128 << host.cores.min(127)) - 1
            ),
            None => "none".to_owned(),
        },
    })
}

/// Network cards with several receive queues, the interrupts of all of which one core takes.
pub(super) fn interrupts(host: &Host) -> Option<Check> {
    let has_several = |card: &String| {
        let queues = host.names(&format!("sys/class/net/{card}/queues"));
        queues.iter().filter(|queue| queue.starts_with("rx-")).count() > 1
    };
    let several: Vec<(String, Vec<String>)> = cards(host)
        .into_iter()
        .filter(has_several)
        .map(|card| {
            let cores =
                interrupts_of(host, &card).iter().filter_map(|number| core_of(host, number)).collect();
            (card, cores)
        })
        .filter(|(_, cores): &(String, Vec<String>)| cores.len() > 1)
        .collect();
    let takes_all = |cores: &[String]| {
        cores.iter().collect::<BTreeSet<_>>().len() == 1 && cores[0].parse::<usize>().is_ok()
    };
    let single: Vec<&String> =
        several.iter().filter(|(_, cores)| takes_all(cores)).map(|(card, _)| card).collect();
    let good = single.is_empty() || host.cores == 1;
    (!several.is_empty()).then(|| Check {
        name: "interrupts",
        verdict: verdict(good, Verdict::Warning),
        found: match good {
            true => "taken by several cores".to_owned(),
            false => format!("one core takes all of {}", names(&single)),
        },
        wanted: "those of a card's queues on as many cores as there are shards".to_owned(),
        why: "one core does the kernel's half of all sockets, and its shard waits behind that",
        fix: "tuning/spread-queues, which says what it would do, and with --apply does it; or irqbalance"
            .to_owned(),
    })
}

/// Interrupts of a card that stand for queues, as `tuning/spread-queues` tells them apart: others seldom come.
fn interrupts_of(host: &Host, card: &str) -> Vec<String> {
    // Those of a virtual card belong to the device that it is a part of.
    let places = ["device", "device/.."].map(|device| format!("sys/class/net/{card}/{device}/msi_irqs"));
    let numbers = places.iter().map(|place| host.names(place)).find(|numbers| !numbers.is_empty());
    let table = host.text("proc/interrupts").unwrap_or_default();
    let is_of_a_queue = |number: &String| {
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{number}:")));
        let name = line.and_then(|line| line.split_whitespace().next_back()).unwrap_or_default();
        !["config", "control", "event", "async", "mgmt"].iter().any(|other| name.contains(other))
    };
    numbers.unwrap_or_default().into_iter().filter(is_of_a_queue).collect()
}

/// Which core takes an interrupt now; a kernel that does not say so says which may.
fn core_of(host: &Host, number: &str) -> Option<String> {
    let files = ["effective_affinity_list", "smp_affinity_list"];
    let mut cores = files.iter().filter_map(|file| host.text(&format!("proc/irq/{number}/{file}")));
    cores.find(|core| !core.is_empty())
}
