//! A sample of the rows that the log changed, with what must be there at the end.
//!
//! Of each table the keys with the smallest hashes are kept, so that the sample is spread over all
//! changed keys and does not depend on their order. A key that is in it at the end has been in it
//! since its first event: the bar only sinks. So what is kept of it is what its last event says.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use holdfast_binlog::columns::Column;
use holdfast_binlog::rows::RowPlan;

/// Keys kept of one table.
pub const KEYS_PER_TABLE: usize = 64;

/// Largest image kept: a sample is no copy. 64 keys of 64 KiB are 4 MiB a table.
pub const IMAGE_MAX: usize = 64 << 10;

/// What the last event says of a key.
#[derive(Debug, Clone)]
pub enum Last {
    /// The row is there, with this image.
    Row {
        /// The image after the change.
        image: Vec<u8>,
        /// How to cut it.
        plan: Arc<RowPlan>,
    },
    /// The row is there; its image was too large to keep.
    Large,
    /// There is no such row.
    Gone,
}

/// The sample of one table.
#[derive(Debug, Default)]
pub struct Sample {
    /// By hash and key.
    keys: BTreeMap<(u64, Vec<u8>), Last>,
    /// The table's columns as the log had them.
    columns: Arc<Vec<Column>>,
}

impl Sample {
    /// Takes note of what an event says of a key. `columns` are the table's, as the log has them.
    pub fn note(&mut self, columns: &Arc<Vec<Column>>, key: Vec<u8>, last: Last) {
        if *self.columns != **columns {
            // Images of two definitions can't be told apart later.
            self.clear();
            self.columns = Arc::clone(columns);
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(&key);
        let place = (hasher.finish(), key);
        let full = self.keys.len() >= KEYS_PER_TABLE;
        let above = self.keys.last_key_value().is_some_and(|(highest, _)| place > *highest);
        if full && above {
            return;
        }
        self.keys.insert(place, last);
        if self.keys.len() > KEYS_PER_TABLE {
            self.keys.pop_last();
        }
    }

    /// Forgets everything: what was noted need not hold any longer.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// The columns of the images.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Keys with what must be there. A key is its cells one after another.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Last)> {
        self.keys.iter().map(|((_, key), last)| (key.as_slice(), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_binlog::columns::{ColumnType, Width};

    fn columns() -> Arc<Vec<Column>> {
        let column =
            Column { kind: ColumnType::Long, width: Width::Fixed(4), nullable: false, unsigned: Some(false) };
        Arc::new(vec![column])
    }

    #[test]
    fn the_last_event_of_each_kept_key_counts_and_the_number_is_bounded() {
        let (mut sample, columns) = (Sample::default(), columns());
        for round in 0..3 {
            for key in 0..1000_u32 {
                let gone = (key + round) % 2 == 0;
                let last = if gone { Last::Gone } else { Last::Large };
                sample.note(&columns, key.to_le_bytes().to_vec(), last);
            }
        }
        assert_eq!(sample.iter().count(), KEYS_PER_TABLE);
        for (key, last) in sample.iter() {
            let key = u32::from_le_bytes(key.try_into().unwrap());
            assert_eq!(matches!(last, Last::Gone), key % 2 == 0, "key {key}");
        }
    }

    #[test]
    fn another_definition_starts_the_sample_anew() {
        let (mut sample, one) = (Sample::default(), columns());
        sample.note(&one, vec![1], Last::Gone);
        let two = Arc::new([one.as_slice(), one.as_slice()].concat());
        sample.note(&two, vec![2], Last::Gone);
        assert_eq!(sample.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>(), [vec![2]]);
        assert_eq!(sample.columns().len(), 2);
    }
}
