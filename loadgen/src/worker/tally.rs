//! What a worker counts, and which latencies fall into the outage.

use std::{collections::BTreeMap, time::Duration};

use protocol::ids::UserId;

use crate::{
    clock::Moment,
    latency::Latencies,
    link::{Counts, Reach, Split, Tick, Totals},
    verify::{Overtaken, Violations},
};

/// When the node was gone, until all users were back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outage {
    from: Option<Moment>,
    until: Option<Moment>,
}

impl Outage {
    pub(super) const fn begin(&mut self, from: Moment) {
        self.from = Some(from);
    }

    pub(super) const fn end(&mut self, until: Moment) {
        self.until = Some(until);
    }

    /// Whether anything between two moments lies in it.
    pub(super) fn touches(&self, first: Moment, last: Moment) -> bool {
        self.from.is_some_and(|from| last >= from) && self.until.is_none_or(|until| first < until)
    }

    /// Whether somebody who came back at `moment` came back from it.
    pub(super) fn is_before(&self, moment: Moment) -> bool {
        self.until.is_none() && self.from.is_some_and(|from| moment > from)
    }
}

/// Latencies of one kind, in two parts.
#[derive(Default)]
pub(super) struct Measured {
    outside: Latencies,
    outage: Latencies,
}

impl Measured {
    pub(super) fn record(&mut self, latency: Duration, in_outage: bool) {
        let part = if in_outage { &mut self.outage } else { &mut self.outside };
        part.record(latency);
    }

    fn split(&self) -> Split {
        Split { outside: self.outside.buckets(), outage: self.outage.buckets() }
    }
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) closes: BTreeMap<u16, u64>,
    pub(super) violations: Violations,
    pub(super) refused: Vec<String>,
    pub(super) overtaken: Vec<Overtaken>,
    pub(super) given_up_by: BTreeMap<String, u64>,
    pub(super) ack: Measured,
    pub(super) delivery: Measured,
    pub(super) lag: Measured,
    pub(super) back: Latencies,
    pub(super) read: Measured,
    pub(super) change: Measured,
    /// From when an absent user sets out until it has read everything.
    pub(super) whole: Measured,
    pub(super) search: Measured,
    pub(super) found: Measured,
    /// Deliveries of this second.
    pub(super) delivery_now: Latencies,
    /// How late the messages of this second were sent.
    pub(super) lag_now: Latencies,
    /// Records of this second that have an `ok`, of the schedule or not.
    pub(super) stored_now: u64,
    /// The counters at the last tick.
    reported: Counts,
    /// The counters when the node was there for certain.
    confirmed: Counts,
    reported_errors: u64,
}

impl Tally {
    /// What happened since the last tick.
    pub(super) fn tick(&mut self, second: Option<u64>, connected: u64, reach: Reach) -> Tick {
        let errors = self.errors.values().sum::<u64>() + self.violations.total();
        let tick = Tick {
            second,
            connected,
            reach,
            sent: self.counts.sent - self.reported.sent,
            acked: self.counts.acked - self.reported.acked,
            delivered: self.counts.delivered - self.reported.delivered,
            stored: std::mem::take(&mut self.stored_now),
            received: self.counts.received - self.reported.received,
            errors: errors - self.reported_errors,
            delivery: self.delivery_now.take_buckets(),
            lag: self.lag_now.take_buckets(),
        };
        self.reported = self.counts;
        self.reported_errors = errors;
        tick
    }

    /// The node was there behind the last tick.
    pub(super) const fn confirm(&mut self) {
        self.confirmed = self.reported;
    }

    pub(super) const fn confirmed(&self) -> Counts {
        self.confirmed
    }

    /// A send of `user` will not be made.
    pub(super) fn give_up(&mut self, user: &UserId) {
        self.counts.given_up += 1;
        *self.given_up_by.entry(user.as_str().to_owned()).or_default() += 1;
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            counts: self.counts,
            errors: self.errors.clone(),
            closes: self.closes.clone(),
            ack: self.ack.split(),
            delivery: self.delivery.split(),
            lag: self.lag.split(),
            back: self.back.buckets(),
            read: self.read.split(),
            change: self.change.split(),
            whole: self.whole.split(),
            search: self.search.split(),
            found: self.found.split(),
            violations: self.violations.clone(),
            refused: self.refused.clone(),
            overtaken: self.overtaken.clone(),
            given_up_by: self.given_up_by.clone(),
            confirmed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_takes_everything_that_touches_it() {
        let mut outage = Outage::default();
        assert!(!outage.touches(Moment(1), Moment(2)));
        outage.begin(Moment(10));
        assert!(!outage.touches(Moment(1), Moment(9)));
        assert!(outage.touches(Moment(1), Moment(10)));
        assert!(outage.touches(Moment(50), Moment(60)));
        assert!(outage.is_before(Moment(11)) && !outage.is_before(Moment(9)));
        outage.end(Moment(20));
        assert!(outage.touches(Moment(19), Moment(60)));
        assert!(!outage.touches(Moment(20), Moment(60)));
    }
}
