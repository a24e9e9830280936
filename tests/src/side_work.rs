//! Work that the ledger knows nothing of: definitions, accounts, counters, cascades, statements that copy rows.
//!
//! Nothing that it makes is gone at its end, so that a comparison of two servers there covers each kind of object.

/// Each statement is one transaction. The first one on `side.t` is the first that no earlier backup can hold.
pub const STATEMENTS: [&str; 39] = [
    "CREATE DATABASE side",
    "CREATE TABLE side.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20), u INT UNIQUE)",
    "INSERT INTO side.t (v, u) VALUES ('a', 1), ('b', 2), ('c', 3)",
    "ALTER TABLE side.t ADD COLUMN w DECIMAL(8,3) DEFAULT 1.125, ADD KEY (v)",
    "CREATE USER 'clerk'@'localhost' IDENTIFIED BY 'Not-used-1'",
    "GRANT SELECT, UPDATE ON side.* TO 'clerk'@'localhost'",
    "CREATE TABLE side.copy AS SELECT id, v FROM side.t",
    "CREATE TRIGGER side.shout BEFORE UPDATE ON side.t FOR EACH ROW SET NEW.v = UPPER(NEW.v)",
    "UPDATE side.t SET v = CONCAT(v, '!')",
    "TRUNCATE TABLE side.copy",
    "REVOKE UPDATE ON side.* FROM 'clerk'@'localhost'",
    "DELETE FROM side.t WHERE id = 2",
    "CREATE VIEW side.seen AS SELECT v FROM side.t",
    "RENAME TABLE side.copy TO side.kept",
    // A counter that stands above every row, and one that no row has moved.
    "CREATE TABLE side.numbers (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT = 100",
    "INSERT INTO side.numbers (v) VALUES (1), (2), (3), (4), (5)",
    "CREATE TABLE side.later (id BIGINT PRIMARY KEY AUTO_INCREMENT, v JSON) AUTO_INCREMENT = 7000",
    // A tree: MariaDB's log holds the changes of its root alone.
    "CREATE TABLE side.roots (id INT PRIMARY KEY, v VARCHAR(20))",
    "CREATE TABLE side.boughs (id INT PRIMARY KEY, root INT, CONSTRAINT of_root FOREIGN KEY (root) \
     REFERENCES side.roots (id) ON DELETE SET NULL ON UPDATE CASCADE)",
    "CREATE TABLE side.leaves (id INT PRIMARY KEY, root INT, KEY (root), CONSTRAINT of_roots FOREIGN KEY (root) \
     REFERENCES side.roots (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO side.roots VALUES (1, 'oak'), (2, 'ash'), (3, 'elm')",
    "INSERT INTO side.boughs VALUES (1, 1), (2, 1), (3, 2), (4, 3)",
    "INSERT INTO side.leaves VALUES (10, 1), (11, 2), (12, 2), (13, 3), (14, 3)",
    "UPDATE side.roots SET id = id + 10 WHERE id >= 2",
    "DELETE FROM side.roots WHERE v = 'ash'",
    "CREATE FUNCTION side.twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
    "CREATE PROCEDURE side.fill() INSERT INTO side.numbers (v) VALUES (side.twice(21))",
    "CALL side.fill()",
    "DELETE FROM side.numbers WHERE v > 2",
    "CREATE EVENT side.yearly ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' COMMENT 'caf\u{e9}' DO \
     CALL side.fill()",
    "CREATE ROLE reader",
    "GRANT SELECT (v), UPDATE (v) ON side.t TO reader",
    "GRANT reader TO 'clerk'@'localhost'",
    "GRANT EXECUTE ON PROCEDURE side.fill TO 'clerk'@'localhost'",
    "ALTER USER 'clerk'@'localhost' IDENTIFIED BY 'Not-used-2' ACCOUNT LOCK",
    "CREATE USER 'brief'@'%' IDENTIFIED BY 'Not-used-3'",
    "DROP USER 'brief'@'%'",
    "INSERT INTO side.later (v) VALUES ('{\"a\": [1, 2, {\"b\": null}], \"c\": 1.5}')",
    "UPDATE side.later SET v = JSON_SET(v, '$.a[1]', 'two', '$.d', 'caf\u{e9}')",
];

/// Changes to a server that did all of it, and what a comparison must name. Each is of a kind that a restore could
/// get wrong, and none undoes another.
pub const PLANTS: [(&str, &str); 17] = [
    ("UPDATE side.later SET v = JSON_SET(v, '$.a[0]', 9)", "side.later"),
    ("DELETE FROM side.leaves WHERE id = 13", "side.leaves"),
    ("UPDATE side.boughs SET root = NULL WHERE id = 4", "side.boughs"),
    ("ALTER TABLE side.numbers AUTO_INCREMENT = 1", "counter"),
    ("ALTER TABLE side.roots COMMENT 'other'", "side.roots"),
    (
        "ALTER TABLE side.boughs DROP FOREIGN KEY of_root, ADD CONSTRAINT of_root2 FOREIGN KEY (root) \
         REFERENCES side.roots (id) ON DELETE CASCADE",
        "ON DELETE SET NULL ON UPDATE CASCADE",
    ),
    ("ALTER TABLE shop.orders MODIFY fee INT GENERATED ALWAYS AS (amount * 4) VIRTUAL", "shop.orders"),
    ("DROP TRIGGER side.shout", "TRIGGER `side`.`shout`"),
    ("DROP FUNCTION side.twice", "FUNCTION `side`.`twice`"),
    ("ALTER PROCEDURE side.fill COMMENT 'other'", "PROCEDURE `side`.`fill`"),
    ("ALTER EVENT side.yearly COMMENT 'cafe'", "EVENT `side`.`yearly`"),
    ("ALTER VIEW side.seen AS SELECT id AS v FROM side.t", "TABLE `side`.`seen`"),
    ("ALTER DATABASE side DEFAULT CHARACTER SET latin1", "DATABASE `side`"),
    ("REVOKE UPDATE (v) ON side.t FROM reader", "'reader'"),
    ("ALTER USER 'clerk'@'localhost' ACCOUNT UNLOCK", "'clerk'@'localhost'"),
    ("ALTER USER 'clerk'@'localhost' IDENTIFIED BY 'Not-used-4'", "'clerk'@'localhost'"),
    ("CREATE USER 'brief'@'%' IDENTIFIED BY 'Not-used-3'", "'brief'@'%'"),
];
