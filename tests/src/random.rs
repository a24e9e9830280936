//! Seeded random numbers: SplitMix64, so that a seed means the same on every machine for ever.

/// A generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator with a new seed, or the one in `HOLDFAST_TEST_SEED`. Prints the seed, so that
    /// a failing test says how to repeat it.
    #[must_use]
    pub fn from_environment(test: &str) -> (Self, u64) {
        let seed = match std::env::var("HOLDFAST_TEST_SEED") {
            Ok(text) => text.parse().expect("HOLDFAST_TEST_SEED is a number"),
            Err(_) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
            }
        };
        println!("{test}: to repeat: HOLDFAST_TEST_SEED={seed} tools/test {test}");
        (Self::new(seed), seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
