//! InnoDB pages: is this page what its server wrote?
//!
//! Layouts and checksums as MySQL 8.0 to 9.7 and MariaDB 10.5 to 11.8 write them. All integers of a page are
//! big-endian. Three layouts, told apart by the flags that page 0 of a tablespace carries at offset 54:
//!
//! | layout | checksum | over |
//! |---|---|---|
//! | classic | 0 and size-8 | CRC-32C of 4..26 xor CRC-32C of 38..size-8; low LSN at size-4 equals 20..24 |
//! | zip (`ROW_FORMAT=COMPRESSED`) | 0 | CRC-32C of 4..16 xor 24..26 xor 34..size |
//! | full_crc32 (MariaDB) | size-4 | CRC-32C of 0..size-4 |
//!
//! Pages encrypted by MySQL carry the checksum of their plain text, so they count as unchecked; MariaDB's carry
//! one of the cipher text. The reference by which this module is tried is `innochecksum` of each server.

/// The smallest page: `KEY_BLOCK_SIZE=1`.
pub const PAGE_BYTES_MIN: u32 = 1024;
/// The largest page: `innodb_page_size=64k`. Equal to a block, so a block never cuts a page.
pub const PAGE_BYTES_MAX: u32 = 64 * 1024;

/// Stored in place of a checksum with `innodb_checksum_algorithm=none`.
const NO_CHECKSUM: u32 = 0xDEAD_BEEF;
/// Where the flags of a tablespace lie in its page 0.
const FSP_FLAGS_AT: usize = 54;

const TYPE_COMPRESSED: u16 = 14;
const TYPE_ENCRYPTED: u16 = 15;
const TYPE_COMPRESSED_ENCRYPTED: u16 = 16;
const TYPE_ENCRYPTED_RTREE: u16 = 17;
/// MariaDB's page compression before full_crc32, plain and encrypted.
const TYPE_MARIADB_COMPRESSED: u16 = 34354;
const TYPE_MARIADB_COMPRESSED_ENCRYPTED: u16 = 37401;
/// In full_crc32 the top bit of the type says "compressed", the rest gives the length in units of 256 bytes.
const FULL_CRC32_COMPRESSED: u16 = 0x8000;

/// First page of the doublewrite area inside the system tablespace, where there is one.
const DOUBLEWRITE_FROM: u64 = 64;
/// One past its last page.
const DOUBLEWRITE_TO: u64 = 192;

/// How pages of a tablespace are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// MySQL, and MariaDB without full_crc32.
    Classic,
    /// `ROW_FORMAT=COMPRESSED` of both.
    Zip,
    /// MariaDB's `innodb_checksum_algorithm=full_crc32`, the default since 10.5.
    FullCrc32,
}

/// Size and layout of the pages of one tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageFormat {
    /// Bytes of a page in the file: a power of two, [`PAGE_BYTES_MIN`] to [`PAGE_BYTES_MAX`].
    pub page_bytes: u32,
    /// Layout.
    pub layout: Layout,
    /// The flags call the tablespace encrypted (MySQL only; MariaDB says it page by page).
    pub encrypted: bool,
}

impl PageFormat {
    /// Reads the flags of a tablespace; `None` for flags that no server writes.
    #[must_use]
    pub fn from_fsp_flags(flags: u32) -> Option<Self> {
        if flags & 0x10 != 0 {
            // Bit 4 is the top bit of MySQL's zip size, which never goes beyond 5: MariaDB took it for this.
            let page_bytes = size_of_shift(flags & 0xF)?;
            return Some(Self { page_bytes, layout: Layout::FullCrc32, encrypted: false });
        }
        let (zip, page) = ((flags >> 1) & 0xF, (flags >> 6) & 0xF);
        // The page size as such: 0 stands for 16 KiB, which it was before there was a choice.
        let logical = if page == 0 { 16 * 1024 } else { size_of_shift(page)? };
        // MySQL's bit 13. MariaDB's classic layout has nothing of its own there.
        let encrypted = flags & (1 << 13) != 0;
        if zip == 0 {
            return Some(Self { page_bytes: logical, layout: Layout::Classic, encrypted });
        }
        let page_bytes = size_of_shift(zip)?;
        (page_bytes <= logical).then_some(Self { page_bytes, layout: Layout::Zip, encrypted })
    }

    /// Reads the flags out of page 0 of a tablespace. `None` if these are not the first bytes of one: too
    /// short, not page 0, all zeros, or flags that no server writes.
    #[must_use]
    pub fn from_first_page(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..PAGE_BYTES_MIN as usize)?;
        // 8 is the type of a tablespace's first page.
        if u32_at(head, 4)? != 0 || u16_at(head, 24)? != 8 {
            return None;
        }
        Self::from_fsp_flags(u32_at(head, FSP_FLAGS_AT)?)
    }
}

fn size_of_shift(shift: u32) -> Option<u32> {
    let bytes = 512u32.checked_shl(shift)?;
    (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// Why a page is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Checksum.
    #[error("its checksum is {stored:#010x} where its bytes give {computed:#010x}")]
    Checksum {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// The two copies of the LSN's low half differ: the page was written in part.
    #[error("it was written in part: its LSN ends in {head:#010x} at its head and {tail:#010x} at its tail")]
    Torn {
        /// In the header.
        head: u32,
        /// In the trailer.
        tail: u32,
    },
    /// The page says it is another one.
    #[error("it bears the number of page {0}")]
    Number(u32),
    /// The compressed length does not fit into the page.
    #[error("its compressed length of {0} does not fit")]
    Length(u32),
}

/// What became of a look at a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its checksum fits.
    Good,
    /// Never written.
    Empty,
    /// Can't be told without a key, or by its place.
    Unchecked,
    /// Not what a server wrote here.
    Bad(Flaw),
}

/// The page type that the header claims.
#[must_use]
pub fn page_type(page: &[u8]) -> u16 {
    u16_at(page, 24).unwrap_or(0)
}

/// The LSN that the header claims.
#[must_use]
pub fn page_lsn(page: &[u8]) -> u64 {
    let half = |at| u64::from(u32_at(page, at).unwrap_or(0));
    half(16) << 32 | half(20)
}

/// Looks at one whole page. `page_no` is its number in the tablespace; `system` says that this is the system
/// tablespace, in which some servers keep copies of other pages.
#[must_use]
pub fn check(format: PageFormat, page_no: u64, system: bool, page: &[u8]) -> Verdict {
    debug_assert_eq!(page.len(), format.page_bytes as usize);
    if is_empty(page) {
        return Verdict::Empty;
    }
    let verdict = match format.layout {
        Layout::FullCrc32 => check_full_crc32(page),
        Layout::Zip => check_zip(page),
        Layout::Classic => check_classic(page),
    };
    let verdict = verdict.unwrap_or(Verdict::Bad(Flaw::Length(0)));
    let number = u32_at(page, 4).unwrap_or(0);
    // Numbers wrap at 2^32, which is the size limit of a tablespace anyway.
    let verdict = match verdict {
        Verdict::Good | Verdict::Unchecked if u64::from(number) != page_no & 0xFFFF_FFFF => {
            Verdict::Bad(Flaw::Number(number))
        }
        other => other,
    };
    let doublewrite = system && (DOUBLEWRITE_FROM..DOUBLEWRITE_TO).contains(&page_no);
    if doublewrite && matches!(verdict, Verdict::Bad(_)) { Verdict::Unchecked } else { verdict }
}

/// All zeros but for 26..34, where a server may have left a flush LSN.
fn is_empty(page: &[u8]) -> bool {
    let zero = |range: std::ops::Range<usize>| page.get(range).is_some_and(all_zero);
    zero(0..26) && zero(34..page.len())
}

/// True if every byte is 0. By comparison with zeros, which is a memcmp even without optimisation.
#[must_use]
pub fn all_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

fn check_full_crc32(page: &[u8]) -> Option<Verdict> {
    let size = page.len();
    let page_type = u16_at(page, 24)?;
    if page_type & FULL_CRC32_COMPRESSED != 0 {
        let length = usize::from(page_type & !FULL_CRC32_COMPRESSED) << 8;
        if length >= size || length < 64 {
            return Some(Verdict::Bad(Flaw::Length(length as u32)));
        }
        return sum(page, length - 4, crc(page.get(..length - 4)?));
    }
    let verdict = sum(page, size - 4, crc(page.get(..size - 4)?))?;
    let (key_version, head, tail) = (u32_at(page, 0)?, u32_at(page, 20)?, u32_at(page, size - 8)?);
    if verdict == Verdict::Good && key_version == 0 && head != tail {
        return Some(Verdict::Bad(Flaw::Torn { head, tail }));
    }
    Some(verdict)
}

fn check_zip(page: &[u8]) -> Option<Verdict> {
    let computed = crc(page.get(4..16)?) ^ crc(page.get(24..26)?) ^ crc(page.get(34..)?);
    if is_mysql_encrypted(u16_at(page, 24)?) {
        return Some(Verdict::Unchecked);
    }
    Some(match sum(page, 0, computed)? {
        Verdict::Bad(_) if u32_at(page, 0)? == NO_CHECKSUM => Verdict::Good,
        // MariaDB, encrypted: key version at 26, checksum of the cipher text at 30.
        Verdict::Bad(_) if u32_at(page, 26)? != 0 && u32_at(page, 30)? == computed => Verdict::Good,
        other => other,
    })
}

fn check_classic(page: &[u8]) -> Option<Verdict> {
    let size = page.len();
    match u16_at(page, 24)? {
        TYPE_COMPRESSED => {
            let length = u32::from(u16_at(page, 32)?);
            let fits = length != 0 && length as usize + 38 <= size;
            return Some(if fits { Verdict::Unchecked } else { Verdict::Bad(Flaw::Length(length)) });
        }
        TYPE_MARIADB_COMPRESSED | TYPE_MARIADB_COMPRESSED_ENCRYPTED => return Some(Verdict::Unchecked),
        other if is_mysql_encrypted(other) => return Some(Verdict::Unchecked),
        _ => {}
    }
    let (first, second) = (u32_at(page, 0)?, u32_at(page, size - 8)?);
    let (head, tail) = (u32_at(page, 20)?, u32_at(page, size - 4)?);
    let computed = crc(page.get(4..26)?) ^ crc(page.get(38..size - 8)?);
    let fits = first == computed && second == computed || first == NO_CHECKSUM && second == NO_CHECKSUM;
    if fits || is_innodb_sum(page, first, second)? {
        return Some(if head == tail { Verdict::Good } else { Verdict::Bad(Flaw::Torn { head, tail }) });
    }
    // MariaDB, encrypted: as in a zip page.
    if u32_at(page, 26)? != 0 && u32_at(page, 30)? == computed {
        return Some(Verdict::Good);
    }
    let stored = if first == computed { second } else { first };
    Some(Verdict::Bad(Flaw::Checksum { stored, computed }))
}

/// The checksum named `innodb`, on pages last written before MySQL 5.7.
fn is_innodb_sum(page: &[u8], first: u32, second: u32) -> Option<bool> {
    let new = fold(page.get(4..26)?).wrapping_add(fold(page.get(38..page.len() - 8)?));
    // Servers before 4.0.14 stored the LSN's head half in the first field; some wrote 0 there.
    if first != new {
        return Some(false);
    }
    Some(second == fold(page.get(..26)?) || second == u32_at(page, 16)?)
}

fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0u32, |sum, &byte| {
        let byte = u32::from(byte);
        let mixed = (sum ^ byte ^ 1_653_893_711).wrapping_shl(8).wrapping_add(sum);
        (mixed ^ 1_463_735_687).wrapping_add(byte)
    })
}

/// Is this page one that a server without its key can't read?
pub(crate) fn is_encrypted(format: PageFormat, page: &[u8]) -> bool {
    let page_type = page_type(page);
    match format.layout {
        // The version of the key is the first field; 0 for none.
        Layout::FullCrc32 => u32_at(page, 0).is_some_and(|key| key != 0),
        _ => is_mysql_encrypted(page_type) || page_type == TYPE_MARIADB_COMPRESSED_ENCRYPTED,
    }
}

fn is_mysql_encrypted(page_type: u16) -> bool {
    matches!(page_type, TYPE_ENCRYPTED | TYPE_COMPRESSED_ENCRYPTED | TYPE_ENCRYPTED_RTREE)
}

fn sum(page: &[u8], at: usize, computed: u32) -> Option<Verdict> {
    let stored = u32_at(page, at)?;
    Some(if stored == computed { Verdict::Good } else { Verdict::Bad(Flaw::Checksum { stored, computed }) })
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// The first page of a new tablespace of MySQL, as its recovery needs it to go on from: space id, type, flags.
pub(crate) fn initial(format: PageFormat, space_id: u32, flags: u32) -> Vec<u8> {
    let mut page = vec![0; format.page_bytes as usize];
    for (at, bytes) in [
        (34, space_id.to_be_bytes().as_slice()),
        (38, space_id.to_be_bytes().as_slice()),
        (24, 8u16.to_be_bytes().as_slice()),
        (FSP_FLAGS_AT, flags.to_be_bytes().as_slice()),
    ] {
        if let Some(field) = page.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    stamp(format.layout, &mut page);
    page
}

/// Stamps a classic or zip page with its checksum, as a server does before it writes it.
///
/// `page` must be at least [`PAGE_BYTES_MIN`] long.
pub(crate) fn stamp(layout: Layout, page: &mut [u8]) {
    let size = page.len();
    let put = |page: &mut [u8], at: usize, value: u32| {
        if let Some(field) = page.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    let part = |page: &[u8], from: usize, to: usize| page.get(from..to).map_or(0, crc);
    let low_lsn = u32_at(page, 20).unwrap_or(0);
    match layout {
        Layout::Classic => {
            let value = part(page, 4, 26) ^ part(page, 38, size - 8);
            put(page, 0, value);
            put(page, size - 8, value);
            put(page, size - 4, low_lsn);
        }
        Layout::Zip => {
            let value = part(page, 4, 16) ^ part(page, 24, 26) ^ part(page, 34, size);
            put(page, 0, value);
        }
        Layout::FullCrc32 => {
            put(page, size - 8, low_lsn);
            let value = part(page, 0, size - 4);
            put(page, size - 4, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page_of(format: PageFormat, page_no: u32, seed: u8) -> Vec<u8> {
        let mut page: Vec<u8> =
            (0..format.page_bytes).map(|i| (i as u8).wrapping_mul(seed | 1) ^ (i >> 8) as u8).collect();
        page[0..4].fill(0);
        page[4..8].copy_from_slice(&page_no.to_be_bytes());
        page[24..26].copy_from_slice(&17855u16.to_be_bytes());
        page[26..34].fill(0);
        if format.layout == Layout::FullCrc32 {
            page[24..26].copy_from_slice(&3u16.to_be_bytes());
        }
        stamp(format.layout, &mut page);
        page
    }

    fn formats() -> impl Strategy<Value = PageFormat> {
        (prop_oneof![Just(Layout::Classic), Just(Layout::Zip), Just(Layout::FullCrc32)], 3u32..=7)
            .prop_map(|(layout, shift)| PageFormat { page_bytes: 512 << shift, layout, encrypted: false })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_stamped_page_is_good_and_any_flipped_bit_that_counts_makes_it_bad(
            format in formats(), page_no in any::<u32>(), seed in any::<u8>(), at in any::<u32>(), bit in 0u8..8,
        ) {
            let mut page = page_of(format, page_no, seed);
            prop_assert_eq!(check(format, u64::from(page_no), false, &page), Verdict::Good);
            let at = at as usize % page.len();
            page[at] ^= 1 << bit;
            let size = page.len();
            // Not covered: the space id and flush LSN of a classic page, the LSN of a zip page, the type (an
            // encrypted or compressed one is not checked).
            let uncovered = match format.layout {
                Layout::Classic => (26..38).contains(&at) || (24..26).contains(&at),
                Layout::Zip => (16..34).contains(&at),
                Layout::FullCrc32 => false,
            };
            prop_assume!(!uncovered && at < size);
            prop_assert!(matches!(check(format, u64::from(page_no), false, &page), Verdict::Bad(_)), "byte {}", at);
        }

        #[test]
        fn no_bytes_make_it_panic(format in formats(), mut bytes in proptest::collection::vec(any::<u8>(), 64), page_type in any::<u16>()) {
            bytes[24..26].copy_from_slice(&page_type.to_be_bytes());
            bytes.resize(format.page_bytes as usize, 7);
            let _ = check(format, 3, true, &bytes);
            let _ = PageFormat::from_first_page(&bytes);
        }

        #[test]
        fn flags_give_a_size_that_divides_a_block_or_nothing(flags in any::<u32>()) {
            if let Some(format) = PageFormat::from_fsp_flags(flags) {
                prop_assert_eq!(PAGE_BYTES_MAX % format.page_bytes, 0);
                prop_assert!(format.page_bytes >= PAGE_BYTES_MIN);
            }
        }
    }

    #[test]
    fn flags_as_seen_on_real_servers_are_understood() {
        let format = |flags| PageFormat::from_fsp_flags(flags).unwrap();
        for flags in [0, 0x4021, 0x4800] {
            let expected = PageFormat { page_bytes: 16384, layout: Layout::Classic, encrypted: false };
            assert_eq!(format(flags), expected, "{flags:#x}");
        }
        assert_eq!(format(0x4029), PageFormat { page_bytes: 8192, layout: Layout::Zip, encrypted: false });
        assert!(format(0x6021).encrypted);
        assert_eq!(
            format(0x15),
            PageFormat { page_bytes: 16384, layout: Layout::FullCrc32, encrypted: false }
        );
    }

    #[test]
    fn a_page_in_the_place_of_another_is_bad() {
        let format = PageFormat { page_bytes: 16384, layout: Layout::Classic, encrypted: false };
        let page = page_of(format, 7, 3);
        assert_eq!(check(format, 8, false, &page), Verdict::Bad(Flaw::Number(7)));
        // In the doublewrite area that is as it should be.
        assert_eq!(check(format, 100, true, &page), Verdict::Unchecked);
    }

    #[test]
    fn a_page_never_written_is_empty_even_with_a_flush_lsn() {
        let format = PageFormat { page_bytes: 16384, layout: Layout::Classic, encrypted: false };
        let mut page = vec![0; 16384];
        assert_eq!(check(format, 9, false, &page), Verdict::Empty);
        page[30] = 1;
        assert_eq!(check(format, 9, false, &page), Verdict::Empty);
    }
}
