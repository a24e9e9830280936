//! A folder of table files, made from a seed, and the change of some of its pages.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// InnoDB's default page.
pub const PAGE: usize = 16 * 1024;

/// A small generator with a period of 2^64 (Steele and Vigna's SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0; its bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }
}

/// Which pages a generation of changes touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Churn {
    /// Every page is as likely.
    Uniform,
    /// Four changes of five fall on one fifth of the pages, as far as the seed decides.
    Skewed,
}

/// Fills `page` with rows; the same `number`, `lsn` and `seed` give the same bytes.
pub fn fill_page(page: &mut [u8], number: u32, lsn: u64, seed: u64) {
    page.fill(0);
    let mut random = Random::new(seed ^ (u64::from(number) << 20));
    let mut body = Vec::with_capacity(PAGE);
    let mut id = u64::from(number) * 70;
    while body.len() + 200 < PAGE - 200 {
        id += 1;
        body.extend_from_slice(&(id as u32).to_be_bytes());
        body.extend_from_slice(&[0x80, 0, 0, 0, 0x19, 0x2a]);
        body.extend_from_slice(&(random.below(500_000) as u32).to_be_bytes());
        for group in 0..15 {
            let digits = format!("{:011}", random.below(100_000_000_000));
            body.extend_from_slice(digits.as_bytes());
            body.push(if group == 9 { b' ' } else { b'-' });
        }
    }
    for (to, from) in page.iter_mut().skip(120).zip(&body) {
        *to = *from;
    }
    let header: [&[u8]; 3] = [&[0; 4], &number.to_be_bytes(), &[0; 8]];
    for (to, from) in page.iter_mut().zip(header.concat().iter().chain(&lsn.to_be_bytes())) {
        *to = *from;
    }
}

/// Writes `files` tables of `pages` pages each into `folder`.
///
/// # Errors
/// Those of the file system.
pub fn make_folder(folder: &Path, files: u32, pages: u32, seed: u64) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut page = vec![0; PAGE];
    for file in 0..files {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(folder.join(name(file)))?);
        for number in 0..pages {
            fill_page(&mut page, number, 1, seed ^ u64::from(file));
            out.write_all(&page)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    }
    Ok(())
}

/// Changes one row in each of `changes` pages, as `churn` says; `generation` is written as their LSN.
///
/// # Errors
/// Those of the file system.
pub fn change_folder(
    folder: &Path,
    (files, pages): (u32, u32),
    changes: u64,
    churn: Churn,
    generation: u64,
) -> io::Result<()> {
    let mut random = Random::new(generation.wrapping_mul(0x1234_5678_9ABC_DEF1));
    for _ in 0..changes {
        let file = random.below(u64::from(files)) as u32;
        let hot = churn == Churn::Skewed && random.below(5) < 4;
        let range = if hot { (pages / 5).max(1) } else { pages };
        let number = random.below(u64::from(range)) as u32;
        let mut out = OpenOptions::new().write(true).open(folder.join(name(file)))?;
        let at = u64::from(number) * PAGE as u64;
        out.seek(SeekFrom::Start(at + 16))?;
        out.write_all(&generation.to_be_bytes())?;
        let row = 120 + random.below(70) * 190;
        out.seek(SeekFrom::Start(at + row))?;
        out.write_all(format!("{:011}", random.below(100_000_000_000)).as_bytes())?;
    }
    Ok(())
}

fn name(file: u32) -> String {
    format!("sbtest{}.ibd", file + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_page() {
        let (mut a, mut b) = (vec![0; PAGE], vec![1; PAGE]);
        fill_page(&mut a, 7, 1, 42);
        fill_page(&mut b, 7, 1, 42);
        assert_eq!(a, b);
        fill_page(&mut b, 7, 1, 43);
        assert_ne!(a, b);
    }
}
