//! A TPC-C-like load: new orders, payments and deliveries, in its shares and its nine tables. Warehouses
//! and districts are hot: each payment changes one of a few rows, each new order one of some dozen.

use holdfast_mysql::{Conn, Result};

use super::{FILL_ROWS, Writer, insert, word};
use crate::replay::Size;
use crate::rows::Random;

const DISTRICTS: u64 = 10;
/// A tenth of the standard's 3,000 and 100,000, so that a load of a minute meets the same rows again as one of hours does.
const CUSTOMERS: u64 = 300;
const ITEMS: u64 = 10_000;

/// The load.
#[derive(Debug)]
pub(super) struct Orders {
    warehouses: u64,
    transactions: u64,
}

impl Orders {
    pub(super) fn new(size: Size) -> Self {
        Self { warehouses: size.of(20).max(2), transactions: size.of(40_000) }
    }
}

impl Writer for Orders {
    fn definitions(&self) -> Vec<String> {
        [
            "CREATE TABLE warehouse (w_id INT PRIMARY KEY, w_name VARCHAR(10), w_tax DECIMAL(4,4), w_ytd DECIMAL(12,2))",
            "CREATE TABLE district (d_w_id INT, d_id INT, d_name VARCHAR(10), d_tax DECIMAL(4,4), d_ytd DECIMAL(12,2), \
             d_next_o_id INT, PRIMARY KEY (d_w_id, d_id))",
            "CREATE TABLE customer (c_w_id INT, c_d_id INT, c_id INT, c_last VARCHAR(16), c_credit CHAR(2), \
             c_balance DECIMAL(12,2), c_ytd_payment DECIMAL(12,2), c_payment_cnt INT, c_delivery_cnt INT, c_data \
             VARCHAR(500), PRIMARY KEY (c_w_id, c_d_id, c_id), KEY (c_w_id, c_d_id, c_last))",
            "CREATE TABLE history (h_c_id INT, h_c_d_id INT, h_c_w_id INT, h_date DATETIME(6), h_amount DECIMAL(6,2), \
             h_data VARCHAR(24))",
            "CREATE TABLE item (i_id INT PRIMARY KEY, i_name VARCHAR(24), i_price DECIMAL(5,2), i_data VARCHAR(50))",
            "CREATE TABLE stock (s_w_id INT, s_i_id INT, s_quantity INT, s_dist VARCHAR(24), s_ytd INT, s_order_cnt INT, \
             s_data VARCHAR(50), PRIMARY KEY (s_w_id, s_i_id))",
            "CREATE TABLE orders (o_w_id INT, o_d_id INT, o_id INT, o_c_id INT, o_entry_d DATETIME(6), o_carrier_id INT, \
             o_ol_cnt INT, PRIMARY KEY (o_w_id, o_d_id, o_id), KEY (o_w_id, o_d_id, o_c_id, o_id))",
            "CREATE TABLE new_orders (no_w_id INT, no_d_id INT, no_o_id INT, PRIMARY KEY (no_w_id, no_d_id, no_o_id))",
            "CREATE TABLE order_line (ol_w_id INT, ol_d_id INT, ol_o_id INT, ol_number INT, ol_i_id INT, ol_delivery_d \
             DATETIME(6), ol_quantity INT, ol_amount DECIMAL(6,2), ol_dist_info VARCHAR(24), \
             PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number))",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn rows(&self, statement: u64) -> Option<String> {
        let text = |number: u64, len| word(&mut Random::new(number), len);
        let districts = self.warehouses * DISTRICTS;
        let (customers, stock) = (districts * CUSTOMERS / FILL_ROWS, self.warehouses * ITEMS / FILL_ROWS);
        let batch = |at: u64| at * FILL_ROWS..(at + 1) * FILL_ROWS;
        let write = |out: &mut String, values: String| out.push_str(&values);
        match statement {
            0 => Some(insert("warehouse", 0..self.warehouses, |w, out| {
                write(out, format!("{w},'w',0.1,300000"))
            })),
            1 => Some(insert("district", 0..districts, |n, out| {
                write(out, format!("{},{},'d',0.1,30000,1", n / DISTRICTS, n % DISTRICTS));
            })),
            at if at < 2 + ITEMS / FILL_ROWS => Some(insert("item", batch(at - 2), |n, out| {
                write(out, format!("{n},{},{},{}", text(n, 14), 1 + n % 99, text(n, 30)));
            })),
            at if at < 2 + ITEMS / FILL_ROWS + customers => {
                let at = at - 2 - ITEMS / FILL_ROWS;
                Some(insert("customer", batch(at), |n, out| {
                    let (district, c) = (n / CUSTOMERS, n % CUSTOMERS);
                    let (w, d) = (district / DISTRICTS, district % DISTRICTS);
                    write(out, format!("{w},{d},{c},{},'GC',-10,10,1,0,{}", text(c, 10), text(n, 300)));
                }))
            }
            at if at < 2 + ITEMS / FILL_ROWS + customers + stock => {
                let at = at - 2 - ITEMS / FILL_ROWS - customers;
                Some(insert("stock", batch(at), |n, out| {
                    let (w, i) = (n / ITEMS, n % ITEMS);
                    write(out, format!("{w},{i},{},{},0,0,{}", 10 + n % 90, text(n, 24), text(n, 40)));
                }))
            }
            _ => None,
        }
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn transaction(&self, conn: &mut Conn, random: &mut Random) -> Result<()> {
        let (w, d, c) = (random.below(self.warehouses), random.below(DISTRICTS), random.below(CUSTOMERS));
        match random.below(92) {
            0..45 => new_order(conn, random, w, d, c),
            45..88 => payment(conn, random, w, d, c),
            _ => delivery(conn, w, random.below(10)),
        }
    }
}

fn new_order(conn: &mut Conn, random: &mut Random, w: u64, d: u64, c: u64) -> Result<()> {
    conn.execute(format!(
        "UPDATE district SET d_next_o_id = LAST_INSERT_ID(d_next_o_id) + 1 WHERE d_w_id={w} AND d_id={d}"
    ))?;
    let order = conn.query_text("SELECT LAST_INSERT_ID()")?.unwrap_or_default();
    let mut items: Vec<u64> = (0..5 + random.below(11)).map(|_| random.below(ITEMS)).collect();
    items.sort_unstable();
    items.dedup();
    let count = items.len();
    conn.execute(format!("INSERT INTO orders VALUES ({w},{d},{order},{c},NOW(6),NULL,{count})"))?;
    conn.execute(format!("INSERT INTO new_orders VALUES ({w},{d},{order})"))?;
    let list: Vec<String> = items.iter().map(u64::to_string).collect();
    conn.execute(format!(
        "UPDATE stock SET s_quantity = IF(s_quantity >= 15, s_quantity - 5, s_quantity + 86), s_ytd = s_ytd + 5, \
         s_order_cnt = s_order_cnt + 1 WHERE s_w_id={w} AND s_i_id IN ({})",
        list.join(",")
    ))?;
    let lines = insert("order_line", 0..count as u64, |number, out| {
        let item = list.get(number as usize).map_or("0", String::as_str);
        out.push_str(&format!("{w},{d},{order},{number},{item},NULL,5,12.50,'{number:024}'"));
    });
    conn.execute(lines).map(|_| ())
}

fn payment(conn: &mut Conn, random: &mut Random, w: u64, d: u64, c: u64) -> Result<()> {
    let amount = 1 + random.below(4999);
    conn.execute(format!("UPDATE warehouse SET w_ytd = w_ytd + {amount} WHERE w_id={w}"))?;
    conn.execute(format!("UPDATE district SET d_ytd = d_ytd + {amount} WHERE d_w_id={w} AND d_id={d}"))?;
    conn.execute(format!(
        "UPDATE customer SET c_balance = c_balance - {amount}, c_ytd_payment = c_ytd_payment + {amount}, \
         c_payment_cnt = c_payment_cnt + 1 WHERE c_w_id={w} AND c_d_id={d} AND c_id={c}"
    ))?;
    conn.execute(format!("INSERT INTO history VALUES ({c},{d},{w},NOW(6),{amount},'w    d')")).map(|_| ())
}

/// The oldest order of each district that waits for it.
fn delivery(conn: &mut Conn, w: u64, carrier: u64) -> Result<()> {
    for d in 0..DISTRICTS {
        let waiting = format!("no_w_id={w} AND no_d_id={d}");
        let oldest =
            format!("SELECT no_o_id FROM new_orders WHERE {waiting} ORDER BY no_o_id LIMIT 1 FOR UPDATE");
        let Some(order) = conn.query_text(oldest)? else { continue };
        conn.execute(format!("DELETE FROM new_orders WHERE {waiting} AND no_o_id={order}"))?;
        let of = format!("o_w_id={w} AND o_d_id={d} AND o_id={order}");
        let customer = conn.query_text(format!("SELECT o_c_id FROM orders WHERE {of}"))?.unwrap_or_default();
        conn.execute(format!("UPDATE orders SET o_carrier_id={carrier} WHERE {of}"))?;
        conn.execute(format!(
            "UPDATE order_line SET ol_delivery_d=NOW(6) WHERE ol_w_id={w} AND ol_d_id={d} AND ol_o_id={order}"
        ))?;
        conn.execute(format!(
            "UPDATE customer SET c_balance = c_balance + 125, c_delivery_cnt = c_delivery_cnt + 1 \
             WHERE c_w_id={w} AND c_d_id={d} AND c_id={customer}"
        ))?;
    }
    Ok(())
}
