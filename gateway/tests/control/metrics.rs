//! The page that Prometheus reads.

use std::{collections::BTreeSet, sync::Arc};

use gateway::metrics::{RefusedReason, ShardMetrics, render};
use protocol::event::{CloseCode, ErrorCode};

fn page(shards: &[Arc<ShardMetrics>]) -> String {
    let mut out = String::new();
    render(shards, &mut out);
    out
}

/// Checks that the page has this line.
fn check(page: &str, line: &str) {
    assert!(page.lines().any(|have| have == line), "no line {line:?} in\n{page}");
}

#[test]
fn shards_are_added_up() {
    let shards: Vec<_> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
    for shard in &shards {
        shard.connections.add(3);
        shard.connections.sub(1);
        shard.sessions.set(1);
        shard.messages_stored_total.add(5);
        shard.deliveries_total.increment();
        shard.ring_enters_total.set_total(9);
        shard.refused_total(RefusedReason::Origin).increment();
        shard.errors_total(ErrorCode::NotAMember).increment();
        shard.closes_total(CloseCode::REPLACED).increment();
        shard.closes_total(CloseCode(3999)).increment();
    }
    let page = page(&shards);
    for line in [
        "gatehouse_connections{shard=\"0\"} 2",
        "gatehouse_connections{shard=\"1\"} 2",
        "gatehouse_sessions 2",
        "gatehouse_messages_stored_total 10",
        "gatehouse_deliveries_total 2",
        "gatehouse_ring_enters_total 18",
        "gatehouse_refused_total{reason=\"origin\"} 2",
        "gatehouse_errors_total{code=\"2004\",name=\"not_a_member\"} 2",
        "gatehouse_errors_total{code=\"3004\",name=\"unavailable\"} 0",
        "gatehouse_closes_total{code=\"4104\"} 2",
        "gatehouse_closes_total{code=\"1000\"} 0",
        "gatehouse_closes_total{code=\"other\"} 2",
    ] {
        check(&page, line);
    }
}

#[test]
fn every_code_is_counted_under_its_own_number() {
    let shard = Arc::new(ShardMetrics::default());
    for (count, code) in (1..).zip(ErrorCode::ALL) {
        shard.errors_total(code).add(count);
    }
    for (count, reason) in (1..).zip(RefusedReason::ALL) {
        shard.refused_total(reason).add(count);
    }
    let page = page(&[shard]);
    for (count, code) in (1..).zip(ErrorCode::ALL) {
        check(
            &page,
            &format!("gatehouse_errors_total{{code=\"{}\",name=\"{}\"}} {count}", code.code(), code.name()),
        );
    }
    for (count, reason) in (1..).zip(RefusedReason::ALL) {
        check(&page, &format!("gatehouse_refused_total{{reason=\"{}\"}} {count}", reason.name()));
    }
}

#[test]
fn bounds_of_histograms_are_exact() {
    let shards: Vec<_> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
    shards[0].ack_seconds.record(200_000);
    shards[1].ack_seconds.record(200_001);
    shards[1].ack_seconds.record(u64::from(u32::MAX));
    shards[0].batch_records.record_many(20, 3);
    let page = page(&shards);
    for line in [
        "gatehouse_ack_seconds_bucket{le=\"0.1\"} 0",
        "gatehouse_ack_seconds_bucket{le=\"0.2\"} 1",
        "gatehouse_ack_seconds_bucket{le=\"0.5\"} 2",
        "gatehouse_ack_seconds_bucket{le=\"100\"} 2",
        "gatehouse_ack_seconds_bucket{le=\"+Inf\"} 3",
        "gatehouse_ack_seconds_sum 4295.367296",
        "gatehouse_ack_seconds_count 3",
        "gatehouse_batch_records_bucket{le=\"10\"} 0",
        "gatehouse_batch_records_bucket{le=\"20\"} 3",
        "gatehouse_batch_records_sum 60",
    ] {
        check(&page, line);
    }
}

#[test]
fn the_page_keeps_the_rules_of_its_format() {
    let page = page(&[Arc::new(ShardMetrics::default()), Arc::new(ShardMetrics::default())]);
    assert!(page.ends_with('\n') && page.lines().count() < 300, "{} lines", page.lines().count());
    let (mut helped, mut typed, mut samples) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(helped.insert(name) && help.ends_with('.'), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(typed.insert(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(samples.insert(series), "{series} is there twice");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().expect("split gives one part at least");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_known = typed.contains(name) || family.is_some_and(|family| typed.contains(family));
            assert!(is_known && name.starts_with("gatehouse_"), "{line}");
        }
    }
    assert_eq!(helped, typed);
}
