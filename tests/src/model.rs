//! What one writer of the ledger does, and what the shop must look like after each of its steps.
//!
//! A writer's transactions follow from the seed, its number and how many it has done, and touch
//! no row of another writer's. So the state after any number of its transactions can be worked
//! out again from nothing, and compared with what a restored server holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::random::Random;

/// Ids of one writer: its number times this, plus a running number.
pub const IDS_PER_THREAD: u64 = 1_000_000_000;

/// The statements that make the shop.
pub const SCHEMA: [&str; 9] = [
    "CREATE DATABASE shop DEFAULT CHARACTER SET utf8mb4",
    "CREATE TABLE shop.customers (id BIGINT PRIMARY KEY, thread INT NOT NULL, name VARCHAR(80) NOT NULL, \
     email VARCHAR(120) NOT NULL, profile JSON, balance DECIMAL(12,2) NOT NULL, \
     touched TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
     loud VARCHAR(80) GENERATED ALWAYS AS (UPPER(name)) STORED, UNIQUE KEY (email), KEY (thread)) ENGINE=InnoDB",
    "CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, customer BIGINT NOT NULL, thread INT NOT NULL, \
     amount INT NOT NULL, status ENUM('new','paid','sent') NOT NULL, note TEXT, \
     fee INT GENERATED ALWAYS AS (amount * 3) VIRTUAL, KEY (thread), KEY (fee), CONSTRAINT of_customer \
     FOREIGN KEY (customer) REFERENCES shop.customers (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE=InnoDB",
    "CREATE TABLE shop.items (order_id BIGINT NOT NULL, line INT NOT NULL, sku VARCHAR(20) NOT NULL, \
     qty INT NOT NULL, PRIMARY KEY (order_id, line), CONSTRAINT of_order \
     FOREIGN KEY (order_id) REFERENCES shop.orders (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE=InnoDB",
    "CREATE TABLE shop.audit (id BIGINT AUTO_INCREMENT PRIMARY KEY, order_id BIGINT NOT NULL, \
     was VARCHAR(10) NOT NULL, is_now VARCHAR(10) NOT NULL, at TIMESTAMP(6) NOT NULL \
     DEFAULT CURRENT_TIMESTAMP(6), KEY (order_id)) ENGINE=InnoDB",
    "CREATE TRIGGER shop.orders_audit AFTER UPDATE ON shop.orders FOR EACH ROW \
     INSERT INTO shop.audit (order_id, was, is_now) VALUES (NEW.id, OLD.status, NEW.status)",
    "CREATE TABLE shop.pictures (id BIGINT PRIMARY KEY, thread INT NOT NULL, body LONGBLOB NOT NULL, \
     KEY (thread)) ENGINE=InnoDB",
    "CREATE TABLE shop.visits (thread INT NOT NULL, page VARCHAR(40) NOT NULL, n INT, KEY (thread)) ENGINE=InnoDB",
    "CREATE TABLE shop.ledger (no BIGINT PRIMARY KEY, thread INT NOT NULL, seq BIGINT NOT NULL, \
     at TIMESTAMP(6) NOT NULL, row_hash CHAR(16) NOT NULL, UNIQUE KEY (thread, seq)) ENGINE=InnoDB",
];

const STATUS: [&str; 3] = ["new", "paid", "sent"];
const NAMES: [&str; 5] =
    ["Ada", "J\u{f6}rg O'Neill", "\u{5c71}\u{7530}", "Zo\u{eb} \\ Fox", "R\u{e9}mi \u{1f419}"];
const PAGES: [&str; 4] = ["/", "/cart", "/caf\u{e9}", "/checkout"];

/// One transaction: its statements, and a hash over the rows that it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Without BEGIN, the ledger's row and COMMIT.
    pub statements: Vec<String>,
    /// 16 hexadecimal digits.
    pub row_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Customer {
    name: String,
    email: String,
    n: u64,
    cents: u64,
    tag: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    customer: u64,
    amount: u64,
    status: &'static str,
    note: Option<String>,
    items: Vec<(String, u64)>,
}

/// The shop as one writer left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    seed: u64,
    thread: u64,
    seq: u64,
    next_id: u64,
    customers: BTreeMap<u64, Customer>,
    orders: BTreeMap<u64, Order>,
    audit: Vec<String>,
    pictures: BTreeMap<u64, (usize, u32)>,
    visits: Vec<(String, u64)>,
}

impl Model {
    /// The empty shop of writer `thread`.
    #[must_use]
    pub fn new(seed: u64, thread: u64) -> Self {
        Self {
            seed,
            thread,
            seq: 0,
            next_id: thread * IDS_PER_THREAD,
            customers: BTreeMap::new(),
            orders: BTreeMap::new(),
            audit: Vec::new(),
            pictures: BTreeMap::new(),
            visits: Vec::new(),
        }
    }

    /// The shop after `seq` transactions.
    #[must_use]
    pub fn after(seed: u64, thread: u64, seq: u64) -> Self {
        let mut model = Self::new(seed, thread);
        while model.seq < seq {
            model.step();
        }
        model
    }

    /// Transactions done.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Does the next transaction.
    pub fn step(&mut self) -> Step {
        self.seq += 1;
        let mut random =
            Random::new(self.seed ^ (self.thread << 48) ^ self.seq.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut statements = Vec::new();
        for _ in 0..=random.below(3) {
            self.deed(&mut random, &mut statements);
        }
        let hash = statements.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, text| {
            text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        });
        Step { statements, row_hash: format!("{hash:016x}") }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn deed(&mut self, random: &mut Random, out: &mut Vec<String>) {
        let customer = nth(&self.customers, random);
        let order = nth(&self.orders, random);
        match (random.below(20), customer, order) {
            (0..=2, _, _) | (_, None, _) => self.new_customer(random, out),
            (3..=7, Some(customer), _) => self.new_order(customer, random, out),
            (8..=10, _, Some(order)) => self.change_status(order, random, out),
            (11, _, Some(order)) => {
                self.orders.remove(&order);
                out.push(format!("DELETE FROM shop.orders WHERE id = {order}"));
            }
            (12, Some(customer), _) => {
                self.customers.remove(&customer);
                self.orders.retain(|_, order| order.customer != customer);
                out.push(format!("DELETE FROM shop.customers WHERE id = {customer}"));
            }
            (13, Some(customer), _) => self.renumber_customer(customer, out),
            (14 | 15, Some(customer), _) => self.change_profile(customer, random, out),
            (16, _, _) => self.picture(random, out),
            _ => self.visit(random, out),
        }
    }

    fn new_customer(&mut self, random: &mut Random, out: &mut Vec<String>) {
        let id = self.id();
        let customer = Customer {
            name: format!("{} {}", random.pick(&NAMES), random.below(1000)),
            email: format!("c{id}@example.org"),
            n: random.below(1 << 40),
            cents: random.below(1_000_000),
            tag: tag(random),
        };
        out.push(format!(
            "INSERT INTO shop.customers (id, thread, name, email, profile, balance) VALUES \
             ({id}, {}, {}, '{}', '{{\"n\": {}, \"tags\": [\"a\", \"{}\"]}}', {})",
            self.thread,
            quoted(&customer.name),
            customer.email,
            customer.n,
            customer.tag,
            money(customer.cents),
        ));
        self.customers.insert(id, customer);
    }

    fn new_order(&mut self, customer: u64, random: &mut Random, out: &mut Vec<String>) {
        let id = self.id();
        let note = (random.below(3) > 0).then(|| "it's \u{2713} ".repeat(random.below(60) as usize));
        let items: Vec<(String, u64)> = (0..random.below(5))
            .map(|_| (format!("sku-{}", random.below(500)), random.below(9) + 1))
            .collect();
        let order = Order { customer, amount: random.below(100_000), status: STATUS[0], note, items };
        let note = order.note.as_deref().map_or_else(|| "NULL".to_owned(), quoted);
        out.push(format!(
            "INSERT INTO shop.orders (id, customer, thread, amount, status, note) VALUES \
             ({id}, {customer}, {}, {}, '{}', {note})",
            self.thread, order.amount, order.status
        ));
        for (line, (sku, qty)) in order.items.iter().enumerate() {
            out.push(format!("INSERT INTO shop.items VALUES ({id}, {line}, '{sku}', {qty})"));
        }
        self.orders.insert(id, order);
    }

    fn change_status(&mut self, id: u64, random: &mut Random, out: &mut Vec<String>) {
        let order = self.orders.get_mut(&id).unwrap();
        let status = *random.pick(&STATUS);
        let amount = random.below(100_000);
        out.push(format!("UPDATE shop.orders SET status = '{status}', amount = {amount} WHERE id = {id}"));
        // The trigger fires for every row that matches, changed or not.
        self.audit.push(format!("{id}|{}|{status}", order.status));
        (order.status, order.amount) = (status, amount);
    }

    /// A new primary key, which cascades to the orders. Cascades fire no triggers.
    fn renumber_customer(&mut self, old: u64, out: &mut Vec<String>) {
        let new = self.id();
        let customer = self.customers.remove(&old).unwrap();
        self.customers.insert(new, customer);
        for order in self.orders.values_mut().filter(|order| order.customer == old) {
            order.customer = new;
        }
        out.push(format!("UPDATE shop.customers SET id = {new} WHERE id = {old}"));
    }

    fn change_profile(&mut self, id: u64, random: &mut Random, out: &mut Vec<String>) {
        let customer = self.customers.get_mut(&id).unwrap();
        customer.n = random.below(1 << 40);
        customer.cents = random.below(1_000_000);
        customer.tag = tag(random);
        out.push(format!(
            "UPDATE shop.customers SET profile = JSON_SET(profile, '$.n', {}, '$.tags[1]', '{}'), balance = {} \
             WHERE id = {id}",
            customer.n,
            customer.tag,
            money(customer.cents)
        ));
    }

    /// A picture is added, taken away or painted over.
    fn picture(&mut self, random: &mut Random, out: &mut Vec<String>) {
        let (choice, old) = (random.below(5), nth(&self.pictures, random));
        if let (0, Some(id)) = (choice, old) {
            self.pictures.remove(&id);
            out.push(format!("DELETE FROM shop.pictures WHERE id = {id}"));
            return;
        }
        let body: Vec<u8> = (0..random.below(12_000)).map(|_| random.next_u64() as u8).collect();
        let hex = body.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let id = match (choice, old) {
            (1 | 2, Some(id)) => {
                out.push(format!("UPDATE shop.pictures SET body = x'{hex}' WHERE id = {id}"));
                id
            }
            _ => {
                let id = self.id();
                out.push(format!("INSERT INTO shop.pictures VALUES ({id}, {}, x'{hex}')", self.thread));
                id
            }
        };
        self.pictures.insert(id, (body.len(), crc32fast::hash(&body)));
    }

    fn visit(&mut self, random: &mut Random, out: &mut Vec<String>) {
        let page = (*random.pick(&PAGES)).to_owned();
        let n = random.below(4);
        let at = self.visits.iter().position(|visit| *visit == (page.clone(), n));
        let row = format!("thread = {} AND page = '{page}' AND n = {n}", self.thread);
        match (random.below(4), at) {
            (0, Some(at)) => {
                self.visits.remove(at);
                out.push(format!("DELETE FROM shop.visits WHERE {row} LIMIT 1"));
            }
            (1, Some(_)) => {
                for visit in self.visits.iter_mut().filter(|visit| **visit == (page.clone(), n)) {
                    visit.1 += 4;
                }
                out.push(format!("UPDATE shop.visits SET n = n + 4 WHERE {row}"));
            }
            _ => {
                self.visits.push((page.clone(), n));
                out.push(format!("INSERT INTO shop.visits VALUES ({}, '{page}', {n})", self.thread));
            }
        }
    }

    /// Per table: the query for this writer's rows, one text a row, and the texts that it must give.
    #[must_use]
    pub fn expectations(&self) -> Vec<(&'static str, String, Vec<String>)> {
        let thread = self.thread;
        let (low, high) = (thread * IDS_PER_THREAD, (thread + 1) * IDS_PER_THREAD);
        let customers = self.customers.iter().map(|(id, c)| {
            let (balance, len) = (money(c.cents), c.name.len());
            format!("{id}|{}|{}|{}|a|{}|2|{balance}|{len}|loud", c.name, c.email, c.n, c.tag)
        });
        let orders = self.orders.iter().map(|(id, o)| {
            let note = o.note.as_deref().unwrap_or("(none)");
            format!("{id}|{}|{}|{}|{note}|{}", o.customer, o.amount, o.status, o.amount * 3)
        });
        let items = self.orders.iter().flat_map(|(id, o)| {
            o.items.iter().enumerate().map(move |(line, (sku, qty))| format!("{id}|{line}|{sku}|{qty}"))
        });
        let pictures = self.pictures.iter().map(|(id, (len, crc))| format!("{id}|{len}|{crc}"));
        let mut visits: Vec<String> = self.visits.iter().map(|(page, n)| format!("{page}|{n}")).collect();
        visits.sort();
        vec![
            (
                "customers",
                format!(
                    "SELECT CONCAT_WS('|', id, name, email, JSON_VALUE(profile, '$.n'), \
                     JSON_UNQUOTE(JSON_EXTRACT(profile, '$.tags[0]')), JSON_UNQUOTE(JSON_EXTRACT(profile, '$.tags[1]')), \
                     JSON_LENGTH(profile, '$.tags'), balance, LENGTH(name), \
                     IF(CAST(loud AS BINARY) = CAST(UPPER(name) AS BINARY), 'loud', loud)) FROM shop.customers \
                     WHERE thread = {thread} ORDER BY id"
                ),
                customers.collect(),
            ),
            (
                "orders",
                format!(
                    "SELECT CONCAT_WS('|', id, customer, amount, status, COALESCE(note, '(none)'), fee) \
                     FROM shop.orders WHERE thread = {thread} ORDER BY id"
                ),
                orders.collect(),
            ),
            (
                "items",
                format!(
                    "SELECT CONCAT_WS('|', order_id, line, sku, qty) FROM shop.items \
                     WHERE order_id >= {low} AND order_id < {high} ORDER BY order_id, line"
                ),
                items.collect(),
            ),
            (
                "audit",
                format!(
                    "SELECT CONCAT_WS('|', order_id, was, is_now) FROM shop.audit \
                     WHERE order_id >= {low} AND order_id < {high} ORDER BY id"
                ),
                self.audit.clone(),
            ),
            (
                "pictures",
                format!(
                    "SELECT CONCAT_WS('|', id, LENGTH(body), CRC32(body)) FROM shop.pictures \
                     WHERE thread = {thread} ORDER BY id"
                ),
                pictures.collect(),
            ),
            (
                "visits",
                format!(
                    "SELECT CONCAT_WS('|', page, n) AS v FROM shop.visits WHERE thread = {thread} \
                     ORDER BY CAST(v AS BINARY)"
                ),
                visits,
            ),
        ]
    }
}

fn nth<T>(map: &BTreeMap<u64, T>, random: &mut Random) -> Option<u64> {
    let index = random.below(map.len().max(1) as u64) as usize;
    map.keys().nth(index).copied()
}

/// Of any length up to one that JSON stores in another way.
fn tag(random: &mut Random) -> String {
    let letter = random.pick(&["x", "\u{e9}"]);
    let longest = if random.below(8) == 0 { 300 } else { 40 };
    letter.repeat(random.below(longest) as usize)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writers_state_follows_from_seed_number_and_count_alone() {
        let mut one = Model::new(7, 3);
        for _ in 0..200 {
            one.step();
        }
        assert_eq!(one, Model::after(7, 3, 200));
        assert_ne!(one, Model::after(8, 3, 200));
    }
}
