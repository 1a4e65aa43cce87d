//! A run's report as lines for a terminal.

use std::fmt;

use super::{GoneReport, OutageReport, Report, Settings, write_floor};
use crate::{latency::Summary, link::Counts, verify::Kind};

/// Fewest users of whom is said what each takes: of fewer it is the program that is measured.
const CROWD_USERS_MIN: u32 = 1000;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_counts(f)?;
        self.write_attention(f)?;
        self.write_changes(f)?;
        self.write_absences(f)?;
        for (name, count) in &self.errors {
            writeln!(f, "error      {name}: {count}")?;
        }
        if let Some(OutageReport { from_seconds, until_seconds }) = self.outage {
            let until = until_seconds.map_or("the end".to_owned(), |until| format!("{until:.1} s"));
            writeln!(f, "outage     from {from_seconds:.1} s until {until}")?;
        }
        if let Some(GoneReport { from_seconds, acked_unseen, .. }) = self.gone {
            let Counts { unanswered, reads_unanswered, .. } = self.counts;
            writeln!(
                f,
                "gone       from {from_seconds:.1} s on; {acked_unseen} acknowledged and not seen by all, {unanswered} sends and \
                 {reads_unanswered} reads not answered"
            )?;
        }
        self.write_costs(f)?;
        self.write_times(f)?;
        write_floor(f, self.multiples.as_ref())?;
        for violation in &self.violations.first {
            writeln!(f, "violation  {}: {}", violation.kind, violation.detail)?;
        }
        for reason in &self.reasons {
            writeln!(f, "because    {reason}")?;
        }
        writeln!(f, "verdict    {}", self.verdict)
    }
}

impl Report {
    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { users, load, rooms, .. } = &self.settings;
        let Counts { due, sent, acked, delivered, resent, retried, replayed, connections, .. } = self.counts;
        writeln!(f, "load       {users} users, {rooms} rooms, {load}")?;
        writeln!(
            f,
            "messages   {due} due, {sent} sent, {acked} acknowledged, {delivered} delivered to others"
        )?;
        writeln!(
            f,
            "again      {resent} sent again, {retried} retried, {replayed} replayed, {connections} connections"
        )?;
        let Counts { amended, overtaken, heads, opened, listed, .. } = self.counts;
        if listed > 0 {
            writeln!(f, "unread     {listed} conversations counted, {} wrong", self.wrong(Kind::Unread))?;
        }
        if heads > 0 {
            writeln!(
                f,
                "large      {heads} heads told instead of records, {opened} records read behind them"
            )?;
        }
        if amended > 0 {
            writeln!(f, "amended    {amended} of the acknowledged, {overtaken} too late for a deletion")?;
        }
        Ok(())
    }

    /// What was read and viewed, where anything was.
    fn write_attention(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { reads, reads_taken, views, receipts, presences, searches, found, .. } = self.counts;
        if self.settings.search_percent > 0 {
            let Counts { searches_undecided: undecided, searches_unanswered: unanswered, .. } = self.counts;
            let wrong = self.wrong(Kind::Hit) + self.wrong(Kind::Unfound);
            writeln!(
                f,
                "searches   {searches} asked, {found} messages found, {wrong} wrong or not found, {undecided} undecided at the end, \
                 {unanswered} not answered"
            )?;
        }
        if reads > 0 {
            writeln!(f, "reads      {reads} said, {reads_taken} taken")?;
        }
        if views > 0 {
            let (receipts_wrong, presences_wrong) = (self.wrong(Kind::Receipt), self.wrong(Kind::Presence));
            writeln!(
                f,
                "viewers    {views} views, {receipts} receipts told, {receipts_wrong} wrong; {presences} comings and goings \
                 told, {presences_wrong} wrong"
            )?;
        }
        Ok(())
    }

    /// Who joined and left, where anybody did.
    fn write_changes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { changes, changes_acked, changes_refused, outside, looks, .. } = self.counts;
        if changes == 0 {
            return Ok(());
        }
        let (switches, wrong) = (self.switches, self.wrong(Kind::Membership));
        writeln!(
            f,
            "members    {changes} changes, {changes_acked} acknowledged, {changes_refused} refused because another came first, \
             {switches} across the line of large groups"
        )?;
        writeln!(
            f,
            "allowed    {outside} refused to who was out, {looks} looks at what one may see, {wrong} wrong"
        )
    }

    /// Who was away, where anybody was.
    fn write_absences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { absences, returned, missed, .. } = self.counts;
        if absences == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "absent     {absences} users, {missed} messages given to them later, {returned} read everything"
        )
    }

    /// What the two sides took of the machine.
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seconds) = self.node_cpu_seconds {
            let each = seconds * 1e6 / (self.counts.acked.max(1) as f64);
            writeln!(f, "node       {seconds:.1} s of the cores, {each:.1} us an acknowledged message")?;
        }
        if self.settings.users >= CROWD_USERS_MIN {
            let each = self.generator_bytes as f64 / f64::from(self.settings.users) / 1024.0;
            writeln!(f, "generator  {each:.1} KiB of its memory a user, all online and no room made")?;
        }
        Ok(())
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ms                   p50      p90      p99    p99.9      max    count")?;
        let rows = [("ack", self.ack), ("delivery", self.delivery), ("lag", self.lag)];
        for (name, pair) in rows {
            writeln!(f, "{}", row(name, &pair.outside))?;
            if self.outage.is_some() {
                writeln!(f, "{}", row(&format!("{name}, outage"), &pair.outage))?;
            }
        }
        if self.change.outside.count > 0 {
            writeln!(f, "{}", row("change", &self.change.outside))?;
        }
        if self.read.outside.count > 0 {
            writeln!(f, "{}", row("read", &self.read.outside))?;
        }
        if self.whole.outside.count > 0 {
            writeln!(f, "{}", row("back until read", &self.whole.outside))?;
        }
        for (name, times) in [("search", &self.search), ("until found", &self.found)] {
            if times.outside.count > 0 {
                writeln!(f, "{}", row(name, &times.outside))?;
            }
        }
        if self.back.count > 0 {
            writeln!(f, "{}", row("back online", &self.back))?;
        }
        Ok(())
    }

    fn wrong(&self, kind: Kind) -> u64 {
        self.violations.counts.get(&kind).copied().unwrap_or(0)
    }
}

fn row(name: &str, summary: &Summary) -> String {
    let Summary { count, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms } = summary;
    format!("{name:<16}{p50_ms:>8.2} {p90_ms:>8.2} {p99_ms:>8.2} {p99_9_ms:>8.2} {max_ms:>8.2} {count:>8}")
}
