//! A folder of InnoDB-like tables in memory, and its churn.
//!
//! A row holds what sysbench's does: keys, and groups of random digits, so that zstd gains on it
//! what it gains on real tables (a little more than a half). A change writes one to four rows of a
//! page anew, with their transaction ids, and the page's log sequence number and checksums.

use std::io;
use std::path::Path;

use crate::rows::{Churn, PAGE, Random, fill_page};

/// First row of a page, and bytes from one to the next (see [`fill_page`]).
const FIRST_ROW: usize = 120;
const ROW: usize = 194;
const ROWS: u64 = 80;
/// Within a row: the transaction's id and the roll pointer, then the digits of the long column.
const STAMP: std::ops::Range<usize> = 4..10;
const DIGITS: usize = 14;
const GROUPS: usize = 10;

/// Tables of one size.
#[derive(Clone, Debug)]
pub struct Tables {
    files: Vec<Vec<u8>>,
    pages: u64,
    random: Random,
    generation: u64,
}

impl Tables {
    /// `files` tables of `pages` pages, all of it from `seed`.
    pub fn new(files: usize, pages: u32, seed: u64) -> Self {
        let table = |file: usize| {
            let mut bytes = vec![0; pages as usize * PAGE];
            for (number, page) in (0..pages).zip(bytes.chunks_exact_mut(PAGE)) {
                fill_page(page, number, 1, seed ^ file as u64);
            }
            bytes
        };
        let files = (0..files).map(table).collect();
        Self { files, pages: u64::from(pages), random: Random::new(seed), generation: 0 }
    }

    /// Names and contents.
    pub fn files(&self) -> impl Iterator<Item = (String, &[u8])> {
        self.files.iter().enumerate().map(|(n, bytes)| (format!("t{n}.ibd"), bytes.as_slice()))
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len() as u64).sum()
    }

    /// Changes `permille` of a thousand pages once (a page may be met twice).
    pub fn age(&mut self, permille: u64, churn: Churn) {
        self.generation += 1;
        let changes = self.files.len() as u64 * self.pages * permille / 1000;
        for _ in 0..changes.max(1) {
            let file = self.random.below(self.files.len() as u64) as usize;
            let hot = churn == Churn::Skewed && self.random.below(5) < 4;
            let page = self.random.below(if hot { (self.pages / 5).max(1) } else { self.pages });
            let start = page as usize * PAGE;
            let (random, generation) = (&mut self.random, self.generation);
            if let Some(page) = self.files.get_mut(file).and_then(|f| f.get_mut(start..start + PAGE)) {
                change(page, random, generation);
            }
        }
    }

    /// Writes them into a folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.files().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
    }
}

fn change(page: &mut [u8], random: &mut Random, generation: u64) {
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in page.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    for _ in 0..=random.below(4) {
        let row = FIRST_ROW + random.below(ROWS) as usize * ROW;
        let [_, _, stamp @ ..] = generation.wrapping_mul(0x1_0003).to_be_bytes();
        put(row + STAMP.start, &stamp);
        for group in 0..GROUPS {
            let digits = format!("{:011}", random.below(100_000_000_000));
            put(row + DIGITS + group * 12, digits.as_bytes());
        }
    }
    put(0, &(random.word() as u32).to_be_bytes());
    put(16, &generation.to_be_bytes());
    put(PAGE - 8, &random.word().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pages differ.
    fn differ(a: &Tables, b: &Tables) -> usize {
        let pages = |t: &Tables| t.files.concat().chunks(PAGE).map(<[u8]>::to_vec).collect::<Vec<_>>();
        pages(a).iter().zip(pages(b)).filter(|(x, y)| *x != y).count()
    }

    #[test]
    fn a_generation_changes_what_it_says_and_the_same_seed_changes_the_same() {
        let first = Tables::new(2, 500, 7);
        for churn in [Churn::Uniform, Churn::Skewed] {
            let (mut a, mut b) = (first.clone(), first.clone());
            a.age(20, churn);
            b.age(20, churn);
            assert_eq!(differ(&a, &b), 0);
            let changed = differ(&first, &a);
            assert!((15..=20).contains(&changed), "{changed} of 1000 pages");
        }
    }
}
