//! Wide rows: 47 columns, some 1.3 KB, six secondary indexes of which one is unique. Of ten transactions six change three
//! columns of a row (one of them indexed), two insert and two delete; ids are drawn uniformly.

use std::fmt::Write as _;

use holdfast_mysql::{Conn, Result};

use super::{Writer, insert, word};
use crate::replay::Size;
use crate::rows::Random;

/// Rows of one INSERT while the table is filled.
const ROWS: u64 = 100;

/// The load.
#[derive(Debug)]
pub(super) struct Wide {
    rows: u64,
    transactions: u64,
}

impl Wide {
    pub(super) fn new(size: Size) -> Self {
        Self { rows: size.of(200_000) / ROWS * ROWS + ROWS, transactions: size.of(80_000) }
    }
}

/// The values of a row, the id apart.
fn values(random: &mut Random, out: &mut String) {
    for _ in 0..20 {
        let _ = write!(out, ",{}", random.below(1_000_000));
    }
    for _ in 0..6 {
        let _ = write!(out, ",{}.{:04}", random.below(1_000_000), random.below(10_000));
    }
    for _ in 0..12 {
        let _ = write!(out, ",{}", word(random, 48));
    }
    for _ in 0..6 {
        let _ = write!(
            out,
            ",FROM_UNIXTIME({}.{:03})",
            1_700_000_000 + random.below(50_000_000),
            random.below(1000)
        );
    }
    let _ = write!(out, ",{},UUID()", word(random, 400));
}

impl Writer for Wide {
    fn definitions(&self) -> Vec<String> {
        let columns = |name: char, count: u32, kind: &str| -> String {
            (1..=count).map(|n| format!("{name}{n} {kind}, ")).collect()
        };
        vec![format!(
            "CREATE TABLE wide (id BIGINT AUTO_INCREMENT PRIMARY KEY, {}{}{}{}note TEXT, code CHAR(36) NOT NULL, \
             KEY (n1), KEY (n2, n3), KEY (s1), KEY (s2(20), n4), KEY (t1), UNIQUE KEY (code))",
            columns('n', 20, "INT"),
            columns('d', 6, "DECIMAL(18,4)"),
            columns('s', 12, "VARCHAR(80)"),
            columns('t', 6, "DATETIME(3)"),
        )]
    }

    fn rows(&self, statement: u64) -> Option<String> {
        let rows = statement * ROWS + 1..(statement + 1) * ROWS + 1;
        (statement < self.rows / ROWS).then(|| {
            insert("wide", rows, |id, out| {
                let _ = write!(out, "{id}");
                values(&mut Random::new(id), out);
            })
        })
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn transaction(&self, conn: &mut Conn, random: &mut Random) -> Result<()> {
        let id = 1 + random.below(self.rows);
        let statement = match random.below(10) {
            0..6 => format!(
                "UPDATE wide SET n1={}, s3={}, t2=NOW(3) WHERE id={id}",
                random.below(1_000_000),
                word(random, 48)
            ),
            6..8 => {
                let mut text = "INSERT INTO wide VALUES (NULL".to_owned();
                values(random, &mut text);
                text.push(')');
                text
            }
            _ => format!("DELETE FROM wide WHERE id={id}"),
        };
        conn.execute(statement).map(|_| ())
    }
}
