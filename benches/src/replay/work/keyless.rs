//! A table without any key, as logs and imports have them: of ten transactions six insert five rows, three change a row and
//! one deletes some. Each change reads the whole table on the source, and on whoever replays it row by row.

use holdfast_mysql::{Conn, Result};

use super::{FILL_ROWS, Writer, insert, word};
use crate::replay::Size;
use crate::rows::Random;

/// Rows: as many whatever the size, since what a change costs grows with them.
const ROWS: u64 = 20_000;

/// The load.
#[derive(Debug)]
pub(super) struct Keyless {
    transactions: u64,
}

impl Keyless {
    pub(super) fn new(size: Size) -> Self {
        Self { transactions: size.of(10_000) }
    }
}

impl Writer for Keyless {
    fn definitions(&self) -> Vec<String> {
        vec![
            "CREATE TABLE entries (at DATETIME(6), who INT, what VARCHAR(60), amount DECIMAL(12,2), note VARCHAR(120))"
                .to_owned(),
        ]
    }

    fn rows(&self, statement: u64) -> Option<String> {
        let rows = statement * FILL_ROWS..(statement + 1) * FILL_ROWS;
        (statement < ROWS / FILL_ROWS).then(|| {
            insert("entries", rows, |number, out| {
                let mut random = Random::new(number);
                let what = word(&mut random, 20);
                out.push_str(&format!(
                    "NOW(6),{},{what},{},{}",
                    number / 2,
                    number % 1000,
                    word(&mut random, 80)
                ));
            })
        })
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn transaction(&self, conn: &mut Conn, random: &mut Random) -> Result<()> {
        let who = random.below(ROWS / 2);
        let statement = match random.below(10) {
            0..6 => {
                let first = random.word() >> 33;
                insert("entries", 0..5, |number, out| {
                    let mut random = Random::new(first + number);
                    let what = word(&mut random, 20);
                    out.push_str(&format!("NOW(6),{who},{what},7.50,{}", word(&mut random, 80)));
                })
            }
            6..9 => format!("UPDATE entries SET amount = amount + 1 WHERE who = {who} LIMIT 1"),
            _ => format!("DELETE FROM entries WHERE who = {who}"),
        };
        conn.execute(statement).map(|_| ())
    }
}
