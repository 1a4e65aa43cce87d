//! What a run proves, and why: what is wrong, what is not known, and which times were missed.

use std::{collections::BTreeMap, fmt, process::ExitCode};

use serde::Serialize;

use super::limits::Time;
use super::{GoneReport, Report, Timing};
use crate::cli::{EXIT_FAILED, EXIT_INVALID, EXIT_PASSED};
use crate::latency::Summary;
use crate::link::Counts;

/// How late the generator may be before a run proves nothing, in milliseconds.
pub(crate) const LAG_P99_MAX_MS: f64 = 5.0;
/// Users that a reason names.
const NAMES_MAX: usize = 8;

/// What a run proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Good,
    Bad,
    /// Nothing: the generator was late.
    Invalid,
}

impl Verdict {
    /// What is wrong decides, then whether the generator was late, then times; and all of it, in that order.
    pub(super) fn with_reasons(
        faults: Vec<String>,
        doubts: Vec<String>,
        missed: Vec<String>,
    ) -> (Self, Vec<String>) {
        let verdict = match (faults.is_empty(), doubts.is_empty(), missed.is_empty()) {
            (false, ..) | (true, true, false) => Self::Bad,
            (true, false, _) => Self::Invalid,
            (true, true, true) => Self::Good,
        };
        (verdict, [faults, doubts, missed].concat())
    }

    /// In texts, pages and JSON alike.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Invalid => "invalid",
        }
    }

    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Good => EXIT_PASSED,
            Self::Bad => EXIT_FAILED,
            Self::Invalid => EXIT_INVALID,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl GoneReport {
    /// What is not known, and why, of a run that counted this.
    pub(super) fn doubts(&self, counts: &Counts) -> Vec<String> {
        let Self { from_seconds, after_seconds, acked_unseen, logs_read, logs_unread } = *self;
        let mut doubts = vec![format!(
            "the node went away {from_seconds:.1} s after the start, and nobody could connect for {after_seconds} s: see in its log why, \
             start it again, and repeat the run"
        )];
        let read = match logs_read {
            0 => String::new(),
            _ => format!("{logs_read} conversations had been read, and {logs_unread} had not; of these "),
        };
        doubts.push(match acked_unseen {
            _ if logs_unread == 0 => "all conversations had been read".to_owned(),
            0 => format!(
                "{read}all that was acknowledged had been seen by all who should; whether it is kept is undecided, the node could not be asked"
            ),
            unseen => format!(
                "{read}{unseen} that were acknowledged had not been seen by all who should: undecided, the node could not be asked"
            ),
        });
        let Counts { unanswered, reads_unanswered, .. } = *counts;
        if unanswered > 0 {
            doubts.push(format!("{unanswered} sends waited, or had no answer: undecided as well"));
        }
        if reads_unanswered > 0 {
            doubts.push(format!(
                "{reads_unanswered} reads had no answer, also such as had one and are said again by who has lost its connection"
            ));
        }
        doubts
    }
}

impl Report {
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    /// What is wrong, whatever the times were.
    pub(super) fn faults(&self, logs_missing: usize) -> Vec<String> {
        let mut faults = [self.faults_so_far(&self.counts), self.faults_at_end(&self.counts)].concat();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        add(logs_missing > 0, format!("{logs_missing} conversations could not be read"));
        let drains = self.counts.drains;
        let unasked = self.outage.is_some() && drains > 0;
        add(unasked, format!("{drains} users were told that the node drains, and it was killed instead"));
        let stays_away = self.outage.is_some_and(|outage| outage.until_seconds.is_none());
        add(stays_away, "not everybody came back after the outage".to_owned());
        faults
    }

    /// What is wrong whenever it is counted, whatever comes next.
    fn faults_so_far(&self, counts: &Counts) -> Vec<String> {
        let mut faults: Vec<String> =
            self.violations.counts.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        let Counts { refused, unanswered, given_up, stopped, undrained, .. } = *counts;
        let Counts { reads_refused, reads_unanswered, views_refused, views_unanswered, .. } = *counts;
        let Counts { searches_refused, searches_unanswered, others_refused, .. } = *counts;
        add(searches_refused > 0, format!("{searches_refused} searches were refused"));
        add(searches_unanswered > 0, format!("{searches_unanswered} searches were not answered in time"));
        add(reads_refused > 0, format!("{reads_refused} reads were refused"));
        add(reads_unanswered > 0, format!("{reads_unanswered} reads were never answered"));
        add(others_refused > 0, format!("{others_refused} heartbeats or looks were refused"));
        add(views_refused > 0, format!("{views_refused} views were refused"));
        add(views_unanswered > 0, "not all views were answered in time".to_owned());
        add(refused > 0, format!("{refused} sends were refused"));
        add(unanswered > 0, format!("{unanswered} sends were never answered"));
        add(
            given_up > 0,
            format!(
                "{given_up} sends were given up, too many of the same users waited already: {}",
                first_names(&self.given_up_by)
            ),
        );
        add(stopped > 0, format!("{stopped} users were told not to come back"));
        add(undrained > 0, "not everybody had seen everything in time".to_owned());
        faults
    }

    /// What is wrong when everything that was to come has.
    fn faults_at_end(&self, counts: &Counts) -> Vec<String> {
        let mut faults = Vec::new();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        let Counts { due, sent, given_up, online_at_end, absences, returned, .. } = *counts;
        // Changes that were given up are in it as well, and may hide as many: the run is bad by them already.
        let unsent = due.saturating_sub(sent + given_up);
        add(unsent > 0, format!("{unsent} messages that were due were neither sent nor given up"));
        let away = u64::from(self.settings.users).saturating_sub(online_at_end);
        add(away > 0, format!("{away} users were not online at the end"));
        let unread = absences.saturating_sub(returned);
        add(unread > 0, format!("{unread} users who were away have not read everything since"));
        faults
    }

    /// What is wrong counts whoever was late. Times count only when the generator was not. All of it is told, whatever decides: who reads
    /// that a run proves nothing wants to know what the next one may prove.
    pub(super) fn decide(&self, faults: Vec<String>) -> (Verdict, Vec<String>) {
        Verdict::with_reasons(faults, self.doubts(), self.limits_missed())
    }

    /// Why this run proves nothing, if nothing was wrong.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let Counts { searches, found, searches_undecided, .. } = self.counts;
        if self.settings.search_percent > 0 && (found == 0 || searches_undecided > found) {
            doubts.push(format!("{found} were found by {searches} searches, {searches_undecided} undecided"));
        }
        if self.settings.timing == Timing::Reported {
            return doubts;
        }
        let lag = self.lag.outside.p99_ms;
        if lag > LAG_P99_MAX_MS {
            doubts.push(format!("the generator was late: lag p99 {lag:.1} ms, at most {LAG_P99_MAX_MS} ms"));
        }
        if self.delivery.outside.count == 0 {
            doubts.push("nothing was delivered outside the outage".to_owned());
        }
        doubts
    }

    /// Times that were not below their limits, where times are judged.
    fn limits_missed(&self) -> Vec<String> {
        match self.settings.timing {
            Timing::Judged => self.settings.limits.missed(|time| self.measured(time)),
            Timing::Reported => Vec::new(),
        }
    }

    /// Of a node that went away counts what was wrong before. That it went is no promise broken, and what nobody could ask it afterwards
    /// is not known: what it says is wrong whenever it says it, what it does not say only where it was there (`confirmed`). Times were not
    /// those of the whole run, and of one that goes may be longer: they are told.
    pub(super) fn decide_of_gone(&self, gone: &GoneReport, confirmed: &Counts) -> (Verdict, Vec<String>) {
        let Counts { unanswered, given_up, undrained, .. } = *confirmed;
        let Counts { reads_unanswered, searches_unanswered, views_unanswered, .. } = *confirmed;
        let said = Counts { unanswered, given_up, undrained, ..self.counts };
        let said = Counts { reads_unanswered, searches_unanswered, views_unanswered, ..said };
        let mut faults = self.faults_so_far(&said);
        if confirmed.ended >= u64::from(self.settings.workers.min(self.settings.users)) {
            faults.extend(self.faults_at_end(confirmed));
        }
        let doubts = [gone.doubts(&self.counts), self.doubts()].concat();
        Verdict::with_reasons(faults, doubts, self.limits_missed())
    }

    /// What limits are for: outside the outage.
    const fn measured(&self, time: Time) -> &Summary {
        match time {
            Time::Ack => &self.ack.outside,
            Time::Delivery => &self.delivery.outside,
            Time::Back => &self.back,
            Time::Change => &self.change.outside,
            Time::Found => &self.found.outside,
            Time::Read => &self.read.outside,
            Time::Search => &self.search.outside,
            Time::Whole => &self.whole.outside,
        }
    }
}

/// The first users by name and what each has, and how many more there are.
fn first_names(users: &BTreeMap<String, u64>) -> String {
    let told = users.iter().take(NAMES_MAX).map(|(name, count)| format!("{name} {count}"));
    let told = told.collect::<Vec<_>>().join(", ");
    match users.len().saturating_sub(NAMES_MAX) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Origin, OutageReport, Pair, Settings};
    use super::*;
    use crate::load::Load;
    use crate::plan::Think;
    use crate::verify::Violations;

    /// Of a run in which everything was as it should be, and nothing was slower than this.
    fn report(timing: Timing, slowest_ms: f64) -> Report {
        let summary = Summary { count: 1, p99_ms: slowest_ms, ..Summary::default() };
        let pair = |outside| Pair { outside, outage: Summary { p99_ms: 9000.0, ..summary } };
        let in_time = Summary { p99_ms: 1.0, ..summary };
        Report {
            origin: Origin::this(),
            settings: Settings {
                users: 12,
                load: Load::steady(1, 1, 128),
                mix: String::new(),
                churn: 0,
                absent_percent: 0,
                read_percent: 0,
                think: Think::default(),
                viewers: 0,
                search_percent: 0,
                form: crate::link::Forms::Mixed,
                workers: 1,
                rooms: 1,
                timing,
                limits: Limits::default(),
            },
            verdict: Verdict::Good,
            reasons: Vec::new(),
            counts: Counts { online_at_end: 12, ..Counts::default() },
            errors: BTreeMap::new(),
            closes: BTreeMap::new(),
            given_up_by: BTreeMap::new(),
            ack: pair(summary),
            delivery: pair(summary),
            lag: pair(in_time),
            back: summary,
            read: pair(in_time),
            change: pair(in_time),
            whole: pair(in_time),
            switches: 0,
            search: pair(in_time),
            found: pair(in_time),
            outage: None,
            gone: None,
            node_cpu_seconds: None,
            multiples: None,
            generator_bytes: 0,
            violations: Violations::default(),
            timeline: Vec::new(),
            ack_distribution: Vec::new(),
            delivery_distribution: Vec::new(),
        }
    }

    #[track_caller]
    fn check(report: &Report, verdict: Verdict, exit_code: u8, reasons: &[&str]) {
        let faults = report.faults(0);
        assert_eq!(
            report.decide(faults),
            (verdict, reasons.iter().map(|reason| (*reason).to_owned()).collect())
        );
        // An exit code has no other way to be compared.
        assert_eq!(format!("{:?}", verdict.exit_code()), format!("{:?}", ExitCode::from(exit_code)));
    }

    #[test]
    fn good_is_0_below_200_ms_outside_the_outage() {
        check(&report(Timing::Judged, 199.9), Verdict::Good, 0, &[]);
        let reasons =
            ["ack.p99 200.0 ms, below 200 ms is asked", "delivery.p99 200.0 ms, below 200 ms is asked"];
        check(&report(Timing::Judged, 200.0), Verdict::Bad, 1, &reasons);
        check(&report(Timing::Reported, 200.0), Verdict::Good, 0, &[]);
        let mut slow = report(Timing::Judged, 10.0);
        slow.delivery.outside.p99_ms = 250.0;
        check(&slow, Verdict::Bad, 1, &["delivery.p99 250.0 ms, below 200 ms is asked"]);
    }

    #[test]
    fn a_limit_decides_with_the_time_that_has_its_name_outside_the_outage() {
        for name in ["ack", "delivery", "back", "change", "found", "read", "search", "whole"] {
            let mut slow = report(Timing::Judged, 10.0);
            slow.settings.limits = Limits::with(&[format!("{name}.p99=50").parse().expect("a limit")]);
            check(&slow, Verdict::Good, 0, &[]);
            let all = serde_json::to_value(&slow).expect("JSON");
            assert!(all[name].is_object(), "{name} is what it is called in the report");
            let times = match name {
                "ack" => &mut slow.ack.outside,
                "delivery" => &mut slow.delivery.outside,
                "back" => &mut slow.back,
                "change" => &mut slow.change.outside,
                "found" => &mut slow.found.outside,
                "read" => &mut slow.read.outside,
                "search" => &mut slow.search.outside,
                _ => &mut slow.whole.outside,
            };
            times.p99_ms = 60.0;
            let reason = format!("{name}.p99 60.0 ms, below 50 ms is asked");
            check(&slow, Verdict::Bad, 1, &[&reason]);
        }
    }

    #[test]
    fn a_generator_that_was_late_proves_nothing() {
        let mut late = report(Timing::Judged, 10.0);
        late.lag.outside.p99_ms = LAG_P99_MAX_MS;
        check(&late, Verdict::Good, 0, &[]);
        late.lag.outside.p99_ms = 5.1;
        check(&late, Verdict::Invalid, 2, &["the generator was late: lag p99 5.1 ms, at most 5 ms"]);
        // Not even that the node was slow; and yet it is told.
        late.ack.outside.p99_ms = 300.0;
        let reasons = [
            "the generator was late: lag p99 5.1 ms, at most 5 ms",
            "ack.p99 300.0 ms, below 200 ms is asked",
        ];
        check(&late, Verdict::Invalid, 2, &reasons);
        late.settings.timing = Timing::Reported;
        check(&late, Verdict::Good, 0, &[]);
        let mut nothing = report(Timing::Judged, 10.0);
        nothing.delivery.outside.count = 0;
        check(&nothing, Verdict::Invalid, 2, &["nothing was delivered outside the outage"]);
    }

    #[test]
    fn what_is_wrong_is_bad_whoever_was_late() {
        let mut bad = report(Timing::Judged, 300.0);
        bad.lag.outside.p99_ms = 100.0;
        bad.counts.unanswered = 2;
        bad.counts.online_at_end = 11;
        (bad.counts.due, bad.counts.sent, bad.counts.given_up) = (10, 6, 3);
        bad.given_up_by = [("u0".to_owned(), 3)].into();
        let reasons = [
            "2 sends were never answered",
            "3 sends were given up, too many of the same users waited already: u0 3",
            "1 messages that were due were neither sent nor given up",
            "1 users were not online at the end",
            "the generator was late: lag p99 100.0 ms, at most 5 ms",
            "ack.p99 300.0 ms, below 200 ms is asked",
            "delivery.p99 300.0 ms, below 200 ms is asked",
        ];
        check(&bad, Verdict::Bad, 1, &reasons);
        bad.settings.timing = Timing::Reported;
        check(&bad, Verdict::Bad, 1, &reasons[..4]);
        let mut good = report(Timing::Judged, 10.0);
        good.counts.undrained = 1;
        assert_eq!(
            good.faults(1),
            ["not everybody had seen everything in time", "1 conversations could not be read"]
        );
        let outage = Some(OutageReport { from_seconds: 1.0, until_seconds: None });
        let gone = Report { outage, ..report(Timing::Judged, 10.0) };
        check(&gone, Verdict::Bad, 1, &["not everybody came back after the outage"]);
    }

    const GONE: GoneReport =
        GoneReport { from_seconds: 12.34, after_seconds: 20, acked_unseen: 7, logs_read: 0, logs_unread: 3 };

    #[test]
    fn a_node_that_went_away_is_bad_only_by_what_was_wrong_before() {
        let mut left = report(Timing::Judged, 10.0);
        // What comes of its going.
        left.counts = Counts { unanswered: 5, online_at_end: 0, due: 9, sent: 1, ..left.counts };
        left.counts = Counts { given_up: 3, searches_unanswered: 1, views_unanswered: 1, ..left.counts };
        (left.counts.undrained, left.counts.reads_unanswered) = (1, 4);
        let before = Counts { due: 9, sent: 1, absences: 1, ..Counts::default() };
        let (verdict, reasons) = left.decide_of_gone(&GONE, &before);
        assert_eq!(verdict, Verdict::Invalid, "{reasons:?}");
        assert!(
            reasons[0]
                .starts_with("the node went away 12.3 s after the start, and nobody could connect for 20 s")
        );
        assert!(reasons[1].starts_with("7 that were acknowledged had not been seen") && reasons.len() == 4);
        assert_eq!(reasons[2], "5 sends waited, or had no answer: undecided as well");
        assert!(reasons[3].starts_with("4 reads had no answer"), "{reasons:?}");
        left.violations.add(crate::verify::Kind::Doubled, String::new);
        let (verdict, reasons) = left.decide_of_gone(&GONE, &before);
        assert_eq!((verdict, reasons[0].as_str(), reasons.len()), (Verdict::Bad, "1 x doubled", 5));
        let read = GoneReport { logs_read: 2, logs_unread: 1, ..GONE };
        let (_, reasons) = left.decide_of_gone(&read, &before);
        assert!(
            reasons[2].starts_with("2 conversations had been read, and 1 had not; of these 7"),
            "{reasons:?}"
        );
    }

    #[test]
    fn whatever_makes_a_run_bad_makes_one_bad_whose_node_went_away_behind_it() {
        let (left, sound) = (report(Timing::Judged, 10.0), Counts { online_at_end: 12, ..Counts::default() });
        // What it says counts whenever it says it; that it says nothing, only while it was there.
        let said = [
            Counts { refused: 1, ..sound },
            Counts { reads_refused: 1, ..sound },
            Counts { others_refused: 1, ..sound },
            Counts { searches_refused: 1, ..sound },
            Counts { stopped: 1, ..sound },
            Counts { views_refused: 1, ..sound },
        ];
        let unsaid = [
            Counts { given_up: 1, ..sound },
            Counts { searches_unanswered: 1, ..sound },
            Counts { unanswered: 1, ..sound },
            Counts { reads_unanswered: 1, ..sound },
            Counts { undrained: 1, ..sound },
            Counts { views_unanswered: 1, ..sound },
            // At the end alone it is known what is missing.
            Counts { ended: 1, online_at_end: 11, ..sound },
            Counts { ended: 1, due: 1, ..sound },
            Counts { ended: 1, absences: 1, ..sound },
        ];
        for (counts, confirmed) in
            said.iter().map(|counts| (counts, &sound)).chain(unsaid.iter().map(|counts| (counts, counts)))
        {
            let run = Report { counts: *counts, ..left.clone() };
            assert_eq!(run.faults(0).len(), 1, "{:?}", run.faults(0));
            let (verdict, reasons) = run.decide_of_gone(&GONE, confirmed);
            assert_eq!((verdict, &reasons[..1]), (Verdict::Bad, &run.faults(0)[..]));
        }
        for counts in unsaid {
            let run = Report { counts, ..left.clone() };
            assert_eq!(run.decide_of_gone(&GONE, &sound).0, Verdict::Invalid, "{counts:?}");
        }
        let (verdict, _) = left.decide_of_gone(&GONE, &sound);
        assert_eq!(verdict, Verdict::Invalid);
    }

    #[test]
    fn searches_that_find_nothing_prove_nothing_and_unanswered_ones_are_bad() {
        for timing in [Timing::Judged, Timing::Reported] {
            let mut searching = report(timing, 10.0);
            searching.settings.search_percent = 5;
            searching.counts = Counts { searches: 7, searches_undecided: 2, ..searching.counts };
            let reasons = ["0 were found by 7 searches, 2 undecided"];
            check(&searching, Verdict::Invalid, 2, &reasons);
            searching.counts.found = 1;
            let reasons = ["1 were found by 7 searches, 2 undecided"];
            check(&searching, Verdict::Invalid, 2, &reasons);
            searching.counts.found = 2;
            check(&searching, Verdict::Good, 0, &[]);
            searching.counts.searches_unanswered = 3;
            check(&searching, Verdict::Bad, 1, &["3 searches were not answered in time"]);
        }
    }

    #[test]
    fn a_reason_names_the_first_users_and_counts_the_rest() {
        let users = |count: u64| (0..count).map(|user| (format!("u{user}"), user + 1)).collect();
        assert_eq!(first_names(&users(2)), "u0 1, u1 2");
        assert_eq!(first_names(&users(10)), "u0 1, u1 2, u2 3, u3 4, u4 5, u5 6, u6 7, u7 8 and 2 more");
    }
}
