//! The net change of a table whose rows are told by their whole image: how many rows of each image came or went.
//!
//! Rows of equal images are the same to every question that can be asked of the table, so the order in which
//! they came and went doesn't matter, and one that came and went again need not be there at all. All that go are deleted
//! before the first that comes is inserted, as in `merge.rs`. A row that was changed in a way that the log does not
//! hold has another image than the log says: the server does not find it, and the table steps down.
//!
//! MySQL looks for all rows of an event in one pass through such a table. A thousand changes of the source, each an
//! event, are a thousand passes; their net change is one.

use foldhash::HashMap;

use super::merge::ENTRY_BYTES;

/// Rows of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    /// More than went (positive) or fewer.
    count: i64,
    /// When the image was first met.
    since: u64,
}

/// Images and how many rows of each came or went.
#[derive(Debug, Default)]
pub(crate) struct Bag {
    rows: HashMap<Vec<u8>, Rows>,
    met: u64,
}

impl Bag {
    /// A row of this image comes. Gives the bytes by which memory grew.
    pub(super) fn put(&mut self, image: &[u8]) -> isize {
        self.change(image, 1)
    }

    /// A row of this image goes.
    pub(super) fn take(&mut self, image: &[u8]) -> isize {
        self.change(image, -1)
    }

    /// Number of different images.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Is a row of this image there in the end that was not before?
    pub(super) fn holds(&self, image: &[u8]) -> bool {
        self.rows.get(image).is_some_and(|rows| rows.count > 0)
    }

    fn change(&mut self, image: &[u8], by: i64) -> isize {
        let bytes = (ENTRY_BYTES + image.len()) as isize;
        let Some(rows) = self.rows.get_mut(image) else {
            self.met += 1;
            self.rows.insert(image.to_vec(), Rows { count: by, since: self.met });
            return bytes;
        };
        rows.count += by;
        if rows.count == 0 {
            self.rows.remove(image);
            return -bytes;
        }
        0
    }

    /// The images of rows that go, and of those that come, each as often as there are rows, in the order of the log:
    /// without a key that is the order in which the server keeps them.
    pub(super) fn into_rows(self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut all: Vec<(Vec<u8>, Rows)> = self.rows.into_iter().collect();
        all.sort_unstable_by_key(|(_, rows)| rows.since);
        let (mut going, mut coming) = (Vec::new(), Vec::new());
        for (image, rows) in all {
            let list = if rows.count < 0 { &mut going } else { &mut coming };
            list.extend(std::iter::repeat_n(image, rows.count.unsigned_abs() as usize));
        }
        (going, coming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_came_and_went_are_not_there_and_equal_ones_count() {
        let mut bag = Bag::default();
        let mut grown = 0;
        for image in [b"a", b"b", b"a", b"c"] {
            grown += bag.put(image);
        }
        for image in [b"b", b"d", b"d", b"c"] {
            grown += bag.take(image);
        }
        assert_eq!(grown, 2 * (ENTRY_BYTES as isize + 1), "the images a and d are held");
        assert!(bag.holds(b"a") && !bag.holds(b"b") && !bag.holds(b"d"));
        let (going, coming) = bag.into_rows();
        assert_eq!(going, [b"d", b"d"]);
        assert_eq!(coming, [b"a", b"a"]);
    }

    #[test]
    fn rows_come_in_the_order_of_the_log() {
        let mut bag = Bag::default();
        for image in ["z", "a", "m"] {
            bag.put(image.as_bytes());
        }
        bag.take(b"z");
        bag.put(b"z");
        let (_, coming) = bag.into_rows();
        assert_eq!(coming, [b"a", b"m", b"z"]);
    }
}
