//! Transactions by their numbers.

/// A set of transactions of a range, each by its number from 0: a bit each, so that one of a hundred million takes 12 MiB
/// whatever is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    bits: Vec<u64>,
    len: u64,
}

impl Numbers {
    /// Takes a number in.
    pub fn insert(&mut self, number: u64) {
        let at = (number / 64) as usize;
        if self.bits.len() <= at {
            self.bits.resize(at + 1, 0);
        }
        if let Some(word) = self.bits.get_mut(at) {
            let bit = 1 << (number % 64);
            self.len += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Is it in?
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_once_whatever_their_order() {
        let mut numbers = Numbers::default();
        assert!(numbers.is_empty() && !numbers.contains(0));
        for number in [200, 63, 64, 0, 200, 63] {
            numbers.insert(number);
        }
        let all: Vec<u64> = (0..1000).filter(|number| numbers.contains(*number)).collect();
        assert_eq!((all, numbers.len()), (vec![0, 63, 64, 200], 4));
    }
}
