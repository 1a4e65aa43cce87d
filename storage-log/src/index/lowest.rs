//! How far back the amendments of a stream reach, in one byte: what lets a search pass over segments without reading them.

/// A lower bound of some sequences: none of them is below. Rounded down to three significant bits, so that rounding it again
/// changes nothing; a bound that is too low costs a read that finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lowest(u8);

/// Sequences below are exact.
const EXACT: u64 = 8;

impl Lowest {
    /// Of no sequence at all.
    pub(crate) const NONE: Self = Self(0);

    /// Of one sequence, from 1.
    pub(crate) fn of(seq: u64) -> Self {
        if seq < EXACT {
            return Self(seq as u8);
        }
        let shift = seq.ilog2() - 2;
        // The highest of the three bits is always set.
        Self((shift << 2 | (seq >> shift) as u32 & 3) as u8 + 4)
    }

    /// Of what either is of.
    pub(crate) fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (0, bound) | (bound, 0) => Self(bound),
            (one, other) => Self(one.min(other)),
        }
    }

    /// Whether one of the sequences may be `seq` or less.
    pub(crate) fn reaches(self, seq: u64) -> bool {
        let bound = match self.0 {
            0 => return false,
            exact if u64::from(exact) < EXACT => exact.into(),
            rounded => u64::from(4 | (rounded - 4) & 3) << (((rounded - 4) >> 2) & 63),
        };
        bound <= seq
    }

    pub(crate) fn read(byte: u8) -> Self {
        Self(byte)
    }

    pub(crate) fn byte(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_never_above_and_hardly_below() {
        let powers = (0..48).map(|bit| 1 << bit);
        let around = powers.flat_map(|power: u64| [power - 1, power, power + 1, power + power / 2]);
        for seq in (1..5_000).chain(around).filter(|seq| (1..1 << 48).contains(seq)) {
            let bound = Lowest::of(seq);
            assert!(bound.reaches(seq), "{seq}");
            assert!(!bound.reaches(seq - seq / 5 - 1), "{seq}");
            assert_eq!(Lowest::read(bound.byte()), bound);
        }
        assert!(!Lowest::NONE.reaches(u64::MAX));
    }

    #[test]
    fn the_least_of_two_is_that_of_all() {
        for (one, other) in [(3, 900), (900, 3), (77, 77), (1, 1 << 40)] {
            let both = Lowest::of(one).min(Lowest::of(other));
            assert_eq!(both, Lowest::of(one.min(other)));
        }
        assert_eq!(Lowest::NONE.min(Lowest::of(9)), Lowest::of(9));
        assert_eq!(Lowest::of(9).min(Lowest::NONE), Lowest::of(9));
        // Bounds are ordered as what they bound.
        assert!((1..10_000).all(|seq| Lowest::of(seq).byte() <= Lowest::of(seq + 1).byte()));
    }
}
