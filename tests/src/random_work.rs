//! Random schemas and random statements on them: what a replay of any kind must reproduce.
//!
//! Values come from small ranges, so that keys collide, are passed on, and come back.

use crate::{Engine, Random};

/// A column of a random table.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: &'static str,
    generated: bool,
}

/// A random table.
#[derive(Debug, Clone)]
struct Table {
    name: String,
    columns: Vec<Column>,
    /// Columns of the primary key.
    key: Vec<String>,
    /// `n` is unique: others may refer to it.
    parent: bool,
}

/// A random case: its database is `r`.
#[derive(Debug)]
pub struct Case {
    engine: Engine,
    random: Random,
    tables: Vec<Table>,
    /// The usual `binlog_row_image`.
    image: &'static str,
}

const KINDS: [&str; 20] = [
    "INT",
    "BIGINT UNSIGNED",
    "SMALLINT",
    "DECIMAL(12,3)",
    "VARCHAR(20)",
    "VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CHAR(8)",
    "VARBINARY(16)",
    "BINARY(4)",
    "DATETIME(3)",
    "TIMESTAMP(2) NULL",
    "DATE",
    "TIME(2)",
    "ENUM('a','b','c','d')",
    "SET('a','b','c','d')",
    "DOUBLE",
    "TEXT",
    "BLOB",
    "BIT(5)",
    "JSON",
];

/// Kinds that a key may have.
const KEYS: [&str; 10] = [
    "INT",
    "BIGINT UNSIGNED",
    "SMALLINT",
    "VARCHAR(20)",
    "CHAR(8)",
    "VARBINARY(16)",
    "DATETIME(3)",
    "DECIMAL(12,3)",
    "DATE",
    "ENUM('a','b','c','d')",
];

impl Case {
    /// A case that follows from the seed.
    #[must_use]
    pub fn new(engine: Engine, seed: u64) -> Self {
        let image = ["FULL", "MINIMAL", "NOBLOB", "FULL"][(seed % 4) as usize];
        Self { engine, random: Random::new(seed), tables: Vec::new(), image }
    }

    /// The statements that make the schema.
    pub fn schema(&mut self) -> Vec<String> {
        let mut out = vec![
            "DROP DATABASE IF EXISTS r".to_owned(),
            "CREATE DATABASE r".to_owned(),
            format!("SET SESSION binlog_row_image = {}", self.image),
        ];
        for number in 0..1 + self.random.below(4) {
            out.push(self.table(number));
        }
        out
    }

    fn table(&mut self, number: u64) -> String {
        let name = format!("t{number}");
        let mut columns = Vec::new();
        let mut parts = Vec::new();
        let mut key = Vec::new();
        let counter = self.random.below(4) == 0;
        match self.random.below(8) {
            0 => {}
            kind => {
                for at in 0..1 + u64::from(kind > 5) {
                    let column = format!("k{at}");
                    let kind = if counter && at == 0 { "INT" } else { *self.random.pick(&KEYS) };
                    let auto = if counter && at == 0 { " AUTO_INCREMENT" } else { "" };
                    parts.push(format!("{column} {} NOT NULL{auto}", kind.replace(" NULL", "")));
                    columns.push(Column { name: column.clone(), kind, generated: false });
                    key.push(column);
                }
            }
        }
        for at in 0..1 + self.random.below(6) {
            let kind = *self.random.pick(&KINDS);
            // What an image leaves out may have a default.
            let default = match (kind, self.random.below(6)) {
                ("INT", 0) => " DEFAULT (n + 1)",
                ("INT" | "SMALLINT" | "DECIMAL(12,3)", 1) => " DEFAULT 7",
                ("VARCHAR(20)", 0 | 1) => " NOT NULL DEFAULT 'it''s'",
                _ => "",
            };
            parts.push(format!("c{at} {kind}{default}"));
            columns.push(Column { name: format!("c{at}"), kind, generated: false });
        }
        // A column that others may refer to, and one that refers to another table's.
        parts.push("n INT".to_owned());
        columns.push(Column { name: "n".to_owned(), kind: "INT", generated: false });
        if self.random.below(3) == 0 {
            let stored = *self.random.pick(&["STORED", "VIRTUAL"]);
            parts.push(format!("g BIGINT GENERATED ALWAYS AS (n * 3 + 1) {stored}"));
            columns.push(Column { name: "g".to_owned(), kind: "BIGINT", generated: true });
        }
        // Columns out of the order of the key.
        if self.random.below(3) == 0 {
            parts.reverse();
            columns.reverse();
        }
        if !key.is_empty() {
            let mut order = key.clone();
            if self.random.below(2) == 0 {
                order.reverse();
            }
            // A counter must lead a key.
            if counter {
                order.sort();
            }
            parts.push(format!("PRIMARY KEY ({})", order.join(", ")));
        }
        for at in 0..self.random.below(3) {
            let unique = if self.random.below(3) > 0 { "UNIQUE " } else { "" };
            let mut over = Vec::new();
            for _ in 0..1 + self.random.below(2) {
                let column = self.random.pick(&columns).clone();
                let text = match column.kind {
                    "TEXT" | "BLOB" => format!("{}(3)", column.name),
                    "JSON" => continue,
                    kind if kind.starts_with("VARCHAR(300)") => format!("{}(5)", column.name),
                    _ => column.name.clone(),
                };
                if !over.contains(&text) {
                    over.push(text);
                }
            }
            if !over.is_empty() {
                parts.push(format!("{unique}KEY i{at} ({})", over.join(", ")));
            }
        }
        if self.engine == Engine::MySql && self.random.below(6) == 0 {
            parts.push("UNIQUE KEY f ((n DIV 2))".to_owned());
        }
        let parent = self.random.below(2) == 0;
        if parent {
            parts.push("UNIQUE KEY un (n)".to_owned());
        }
        let mut others: Vec<String> =
            self.tables.iter().filter(|t| t.parent).map(|t| t.name.clone()).collect();
        if parent {
            others.push(name.clone());
        }
        if self.random.below(2) == 0 && !others.is_empty() {
            let parent = self.random.pick(&others).clone();
            let action = ["CASCADE", "SET NULL", "RESTRICT", "NO ACTION"];
            let (delete, update) = (*self.random.pick(&action), *self.random.pick(&action));
            parts.push("p INT".to_owned());
            columns.push(Column { name: "p".to_owned(), kind: "INT", generated: false });
            parts.push(format!(
                "FOREIGN KEY (p) REFERENCES {parent} (n) ON DELETE {delete} ON UPDATE {update}"
            ));
        }
        let text =
            format!("CREATE TABLE r.{name} ({}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4", parts.join(", "));
        self.tables.push(Table { name, columns, key, parent });
        text
    }

    /// A random statement, or a few that belong together.
    pub fn statements(&mut self) -> Vec<String> {
        let table = self.random.pick(&self.tables.clone()).clone();
        let name = format!("r.{}", table.name);
        match self.random.below(30) {
            0..=8 => vec![self.insert(&table, "INSERT IGNORE")],
            9 => vec![self.insert(&table, "REPLACE")],
            10 => {
                let set = self.assignment(&table);
                vec![format!("{} ON DUPLICATE KEY UPDATE {set}", self.insert(&table, "INSERT"))]
            }
            11..=17 => {
                let (set, condition) = (self.assignment(&table), self.condition(&table));
                vec![format!("UPDATE IGNORE {name} SET {set} WHERE {condition}")]
            }
            18..=20 => {
                let condition = self.condition(&table);
                vec![format!("DELETE FROM {name} WHERE {condition}")]
            }
            // Values of a unique key go round.
            21 => vec![
                format!("UPDATE {name} SET n = n + 1 WHERE n IS NOT NULL ORDER BY n DESC"),
                format!("UPDATE {name} SET n = n - 1 WHERE n IS NOT NULL ORDER BY n"),
            ],
            22 => {
                let (a, b) = (self.random.below(12), self.random.below(12));
                vec![
                    "BEGIN".to_owned(),
                    format!("UPDATE IGNORE {name} SET n = -99 WHERE n = {a}"),
                    format!("UPDATE IGNORE {name} SET n = {a} WHERE n = {b}"),
                    format!("UPDATE IGNORE {name} SET n = {b} WHERE n = -99"),
                    "COMMIT".to_owned(),
                ]
            }
            // Away and back under the same key.
            23 => match table.key.first() {
                Some(key) => vec![
                    format!("CREATE TEMPORARY TABLE r.keep AS SELECT * FROM {name} LIMIT 0"),
                    "DROP TEMPORARY TABLE r.keep".to_owned(),
                    format!("DELETE FROM {name} ORDER BY {key} LIMIT 2"),
                    self.insert(&table, "INSERT IGNORE"),
                ],
                None => vec![format!("DELETE FROM {name} LIMIT 1")],
            },
            24 => {
                let mut all = vec!["BEGIN".to_owned()];
                for _ in 0..self.random.below(6) {
                    let table = self.random.pick(&self.tables.clone()).clone();
                    all.push(self.insert(&table, "INSERT IGNORE"));
                    let condition = self.condition(&table);
                    all.push(format!("DELETE FROM r.{} WHERE {condition}", table.name));
                    if self.random.below(3) == 0 {
                        all.push("SAVEPOINT s".to_owned());
                        all.push(self.insert(&table, "INSERT IGNORE"));
                        all.push("ROLLBACK TO s".to_owned());
                    }
                }
                all.push(if self.random.below(5) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
                all
            }
            25 => {
                let condition = self.condition(&table);
                // With both off, MariaDB 10.11 fills an empty table in bulk, logs the duplicates that
                // IGNORE drops, and its own applier fails on them (1180): not ours to replay.
                let off = match self.engine {
                    Engine::MySql => "SET SESSION foreign_key_checks = 0, unique_checks = 0",
                    Engine::MariaDb => "SET SESSION foreign_key_checks = 0",
                };
                vec![
                    off.to_owned(),
                    self.insert(&table, "INSERT IGNORE"),
                    format!("DELETE FROM {name} WHERE {condition}"),
                    "SET SESSION foreign_key_checks = 1, unique_checks = 1".to_owned(),
                ]
            }
            26 => {
                let image = match self.random.below(16) {
                    0 => "MINIMAL",
                    1 => "NOBLOB",
                    _ => self.image,
                };
                let zone = *self.random.pick(&["+00:00", "+05:30", "SYSTEM"]);
                let mode = *self.random.pick(&["", "ANSI_QUOTES", "STRICT_ALL_TABLES"]);
                vec![format!(
                    "SET SESSION binlog_row_image = {image}, time_zone = '{zone}', sql_mode = '{mode}'"
                )]
            }
            27 => match self.random.below(4) {
                0 => vec![format!("TRUNCATE TABLE {name}")],
                1 => {
                    vec![format!("ALTER TABLE {name} ADD COLUMN x{} INT DEFAULT 7", self.random.below(1000))]
                }
                2 => vec![format!("ALTER TABLE {name} COMMENT = 'c{}'", self.random.below(1000))],
                _ => vec![format!("ANALYZE TABLE {name}")],
            },
            28 if !table.key.is_empty() => {
                let key = self.random.pick(&table.key).clone();
                let kind = table.columns.iter().find(|c| c.name == key).map_or("INT", |c| c.kind);
                let (value, condition) = (self.value(kind), self.condition(&table));
                vec![format!("UPDATE IGNORE {name} SET {key} = {value} WHERE {condition} LIMIT 1")]
            }
            _ => vec![self.insert(&table, "INSERT IGNORE"), self.insert(&table, "INSERT IGNORE")],
        }
    }

    fn insert(&mut self, table: &Table, verb: &str) -> String {
        // Now and then without columns that are not of the key, and without a counter.
        // MariaDB logs a REPLACE that meets another unique key as an update of the columns that it names, and leaves
        // out those that it sets to their defaults (10.11, MINIMAL): its own replica goes astray, and so does every replay.
        let bare = verb == "REPLACE" && self.engine == Engine::MariaDb;
        let few = self.random.below(3) == 0 && !bare;
        let random = &mut self.random;
        let left_out = |c: &Column, random: &mut Random| {
            few && (!table.key.contains(&c.name) || c.kind == "INT" && c.name == "k0") && random.below(3) == 0
        };
        let columns: Vec<&Column> = table
            .columns
            .iter()
            .filter(|c| !c.generated && (!left_out(c, random) || c.name == "n"))
            .collect();
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let rows: Vec<String> = (0..1 + self.random.below(6))
            .map(|_| {
                let values: Vec<String> = columns.iter().map(|c| self.value_of(c)).collect();
                format!("({})", values.join(", "))
            })
            .collect();
        format!("{verb} INTO r.{} ({}) VALUES {}", table.name, names.join(", "), rows.join(", "))
    }

    fn value_of(&mut self, column: &Column) -> String {
        if !column.name.starts_with('k') && self.random.below(5) == 0 {
            return "NULL".to_owned();
        }
        self.value(column.kind)
    }

    fn assignment(&mut self, table: &Table) -> String {
        let first = self.one_assignment(table);
        match self.random.below(3) {
            0 => format!("{first}, {}", self.one_assignment(table)),
            _ => first,
        }
    }

    fn one_assignment(&mut self, table: &Table) -> String {
        let settable: Vec<Column> = table.columns.iter().filter(|c| !c.generated).cloned().collect();
        let column = self.random.pick(&settable).clone();
        match column.kind {
            "INT" | "SMALLINT" if self.random.below(2) == 0 => format!("{0} = {0} + 1", column.name),
            _ => format!("{} = {}", column.name, self.value_of(&column)),
        }
    }

    fn condition(&mut self, table: &Table) -> String {
        let column = self.random.pick(&table.columns).clone();
        match self.random.below(4) {
            0 => format!("{} IS NULL", column.name),
            1 => format!("n % 5 = {}", self.random.below(5)),
            2 => format!("n > {}", self.random.below(12)),
            _ if column.kind == "JSON" || column.generated => "n = 3".to_owned(),
            _ => format!("{} = {}", column.name, self.value(column.kind)),
        }
    }

    fn value(&mut self, kind: &str) -> String {
        let n = self.random.below(14);
        match kind {
            "INT" | "SMALLINT" => format!("{}", n as i64 - 2),
            "BIGINT UNSIGNED" => {
                [n.to_string(), "18446744073709551615".to_owned()][usize::from(n == 13)].clone()
            }
            "DECIMAL(12,3)" => format!("{}.{n}", n as i64 - 3),
            "VARBINARY(16)" | "BINARY(4)" | "BLOB" => format!("UNHEX('{}')", "00FF41".repeat(n as usize % 4)),
            "DATETIME(3)" => format!("'2024-02-{:02} 10:00:00.{n:03}'", n + 1),
            "TIMESTAMP(2) NULL" => format!("'2024-03-{:02} 11:00:00.{n:02}'", n + 1),
            "DATE" => format!("'2024-01-{:02}'", n + 1),
            "TIME(2)" => format!("'-{n:02}:00:00.5'"),
            "ENUM('a','b','c','d')" => format!("{}", n % 4 + 1),
            "SET('a','b','c','d')" => format!("{n}"),
            "DOUBLE" => format!("{n}.25e{}", n % 5),
            "BIT(5)" => format!("{n}"),
            "JSON" => format!("'{{\"a\": [{n}, \"x\"], \"b\": {{\"c\": {n}.5}}}}'"),
            // Equal under some collations, unequal as bytes.
            _ => {
                let words =
                    ["''", "'a'", "'A'", "'\u{e4}'", "'b '", "'b'", "'ss'", "'\u{df}'", "'long long'", "'Z'"];
                (*self.random.pick(&words)).to_owned()
            }
        }
    }
}
