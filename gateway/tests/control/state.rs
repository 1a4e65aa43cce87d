//! When a node is ready, and what it says when it is not.

use gateway::state::{LogHealth, NodeState};

#[test]
fn a_node_is_ready_from_recovery_until_it_drains() {
    let state = NodeState::new(2);
    let reasons = state.is_ready().expect_err("just started");
    assert!(reasons.starts_with("recovering: 2 of 2 logs are not open yet"), "{reasons}");
    state.set_log(0, LogHealth::Serving);
    state.set_log(1, LogHealth::Serving);
    state.set_recovered();
    assert_eq!(state.is_ready(), Ok(()));
    state.set_draining();
    assert!(state.is_draining() && !state.exit_failed());
    assert!(state.is_ready().expect_err("it leaves").starts_with("draining: "));
}

#[test]
fn a_failed_log_stays_failed_and_shows_in_the_exit_code() {
    let state = NodeState::new(3);
    state.set_recovered();
    state.set_log(2, LogHealth::Failed);
    state.set_log(2, LogHealth::Serving);
    assert_eq!(state.log(2), LogHealth::Failed);
    assert!(state.exit_failed());
    state.set_draining();
    let reasons = state.is_ready().expect_err("a log failed");
    assert_eq!(reasons.lines().count(), 2, "{reasons}");
    assert!(reasons.contains("log 2 failed: "), "{reasons}");
}

#[test]
fn a_refused_log_leaves_the_others_serving() {
    let state = NodeState::new(2);
    state.set_recovered();
    state.set_log(0, LogHealth::Refused);
    state.set_log(1, LogHealth::Serving);
    assert_eq!(state.is_ready(), Ok(()));
    assert!(state.degraded().starts_with("log 0 was refused at start"));
    assert!(!state.exit_failed());
    state.set_log(1, LogHealth::Refused);
    assert!(state.is_ready().is_err(), "nothing is left to serve");
}

#[test]
fn a_log_without_a_next_segment_is_named_while_that_is_so() {
    let state = NodeState::new(2);
    state.set_recovered();
    let metric = |value: u32| {
        let mut text = String::new();
        state.render(&mut text);
        text.contains(&format!("\ngatehouse_logs_without_next_segment {value}\n"))
    };
    assert!(state.without_next_segment().is_empty() && metric(0));
    state.set_without_next_segment(1, true);
    assert_eq!(state.is_ready(), Ok(()), "who comes can read");
    let lines = state.without_next_segment();
    assert!(lines.starts_with("log 1 has no next segment") && lines.lines().count() == 1, "{lines}");
    assert!(metric(1) && state.degraded().is_empty(), "an upgrade goes on");
    state.set_without_next_segment(1, false);
    assert!(state.without_next_segment().is_empty() && metric(0));
}
