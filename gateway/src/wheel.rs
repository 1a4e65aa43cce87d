//! One timer wheel for all connections of a shard: 64 buckets of one second.
//!
//! A connection stands in it once, at the earliest second at which something about it may have to be decided. What that
//! is, is worked out when the second comes: most often nothing, and it is put further ahead. So an idle connection costs
//! one visit a minute and no timer of its own.

const BUCKETS: u64 = 64;

/// Slots by the second at which they are due.
pub struct Wheel {
    buckets: Vec<Vec<u32>>,
    /// The next second to be looked at.
    next: u64,
}

impl Wheel {
    /// The furthest ahead that a slot may be put, in seconds.
    pub const AHEAD_MAX: u64 = BUCKETS - 1;

    /// An empty wheel at second 0.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS as usize], next: 0 }
    }

    /// Puts a slot at `second`, or at the nearest one that the wheel has; says which.
    pub fn put(&mut self, slot: u32, second: u64) -> u64 {
        let second = second.clamp(self.next, self.next + Self::AHEAD_MAX);
        self.buckets[(second % BUCKETS) as usize].push(slot);
        second
    }

    /// Appends the slots of one second that has come; `None` when all are taken up to `now`.
    ///
    /// The caller keeps the second that [`Wheel::put`] gave last for each slot, and drops what comes at another.
    pub fn take(&mut self, now: u64, due: &mut Vec<u32>) -> Option<u64> {
        if self.next > now {
            return None;
        }
        let second = self.next;
        due.append(&mut self.buckets[(second % BUCKETS) as usize]);
        self.next += 1;
        Some(second)
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_at_their_second_and_not_beyond_a_turn_of_the_wheel() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.put(1, 5), 5);
        assert_eq!(wheel.put(2, 500), 63);
        let mut seen = Vec::new();
        let mut due = Vec::new();
        for now in 0..70 {
            while let Some(second) = wheel.take(now, &mut due) {
                seen.extend(due.drain(..).map(|slot| (slot, second)));
            }
        }
        assert_eq!(seen, [(1, 5), (2, 63)]);
        assert_eq!(wheel.put(3, 0), 70, "a second that has passed is now");
    }
}
