-- Run on MySQL 9.7.4 (--server-id=11, local_infile on); each FLUSH ends one fixture.
RESET BINARY LOGS AND GTIDS;
-- mysql-rows
CREATE DATABASE fx; USE fx;
CREATE TABLE types (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, t TINYINT, s SMALLINT, m MEDIUMINT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
 d1 DECIMAL(5,2), d2 DECIMAL(65,30), f FLOAT, dbl DOUBLE, bits BIT(13), y YEAR, dt DATE, ti TIME(0), ti2 TIME(2), ti6 TIME(6),
 dtm DATETIME, dtm3 DATETIME(3), ts TIMESTAMP(6) NULL, c CHAR(10), clong CHAR(200) CHARACTER SET utf8mb4, v VARCHAR(20), vlong VARCHAR(1000), bin BINARY(4), vb VARBINARY(300),
 tb TINYBLOB, bl BLOB, mb MEDIUMTEXT, lb LONGBLOB, e ENUM('a','b','c'), st SET('x','y','z'), j JSON, g GEOMETRY, vec VECTOR(4),
 gen INT GENERATED ALWAYS AS (t + 1) STORED, genv INT GENERATED ALWAYS AS (t + 2) VIRTUAL);
INSERT INTO types (t,s,m,b,bu,d1,d2,f,dbl,bits,y,dt,ti,ti2,ti6,dtm,dtm3,ts,c,clong,v,vlong,bin,vb,tb,bl,mb,lb,e,st,j,g,vec) VALUES
 (-128,-32768,16777215,-9223372036854775808,18446744073709551615,-999.99,'12345678901234567890123456789012345.123456789012345678901234567890',1.5,-2.25,b'1010101010101',2026,'2026-11-21','-838:59:59','-00:00:01.50','12:34:56.789012',
 '2026-11-21 01:02:03','1000-01-01 00:00:00.001','2026-11-21 01:02:03.456789','abc',REPEAT('é',50),'short',REPEAT('long',80),X'00FF00FF',X'0102','tiny','blob',REPEAT('m',100),X'00','b','x,z','{"a":[1,2,{"b":null}]}',ST_GeomFromText('POINT(1 2)'),TO_VECTOR('[1,2,3,4]')),
 (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
UPDATE types SET t = 7, v = 'other' WHERE id = 1;
DELETE FROM types WHERE id = 2;
CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(10));
CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1,'one'),(2,'two'); INSERT INTO child VALUES (10,1),(11,1),(12,2);
DELETE FROM parent WHERE id = 1;
SET SESSION binlog_rows_query_log_events = ON;
SET SESSION foreign_key_checks = 0; INSERT INTO child VALUES (13,99); SET SESSION foreign_key_checks = 1;
BEGIN; INSERT INTO parent VALUES (3,'three'); SAVEPOINT a; INSERT INTO parent VALUES (4,'four'); ROLLBACK TO a; INSERT INTO child VALUES (14,3); COMMIT;
SET SESSION binlog_row_image = MINIMAL; UPDATE parent SET name = 'TWO' WHERE id = 2; DELETE FROM parent WHERE id = 3; SET SESSION binlog_row_image = FULL;
CREATE TABLE nopk (a INT, b VARCHAR(10)); INSERT INTO nopk VALUES (1,'x'),(1,'x'),(2,NULL);
CREATE TABLE ckey (a VARCHAR(10) COLLATE utf8mb4_bin, b BIGINT, c DATETIME, v INT, PRIMARY KEY (c, a)); 
INSERT INTO ckey VALUES ('k1',1,'2026-01-01 00:00:00',5),('k2',2,'2026-01-02 00:00:00',6);
SET GLOBAL binlog_row_metadata = FULL; 
INSERT INTO ckey VALUES ('k3',3,'2026-01-03 00:00:00',7); UPDATE ckey SET v = 8 WHERE a = 'k3';
INSERT INTO types (t) VALUES (3);
SET GLOBAL binlog_row_metadata = MINIMAL;
FLUSH BINARY LOGS;
-- mysql-ddl
SET SESSION time_zone = '+05:00', sql_mode = 'ANSI_QUOTES', auto_increment_increment = 3, auto_increment_offset = 2, lc_time_names = 'de_DE', default_collation_for_utf8mb4 = utf8mb4_general_ci, collation_database = latin1_swedish_ci;
SET timestamp = 1700000000.123456;
CREATE TABLE "a b" (id INT PRIMARY KEY, w DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6));
SET timestamp = DEFAULT; SET SESSION sql_mode = DEFAULT, time_zone = DEFAULT, auto_increment_increment = 1, auto_increment_offset = 1, lc_time_names = DEFAULT, default_collation_for_utf8mb4 = DEFAULT;
ALTER TABLE `a b` ADD COLUMN x INT, ALGORITHM=INSTANT; RENAME TABLE `a b` TO ab; TRUNCATE ab;
CREATE TABLE ctas AS SELECT * FROM parent;
CREATE USER 'app'@'%' IDENTIFIED BY 'secret'; GRANT SELECT, INSERT ON fx.* TO 'app'@'%'; CREATE ROLE r1; GRANT r1 TO 'app'@'%'; ALTER USER 'app'@'%' IDENTIFIED BY 'secret2'; 
CREATE TRIGGER tr BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = UPPER(NEW.name);
CREATE DEFINER = CURRENT_USER PROCEDURE p() SELECT 1;
CREATE VIEW vw AS SELECT id FROM parent;
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM fx.nopk;
DROP TABLE ab, ctas; DROP VIEW vw; DROP EVENT ev; DROP USER 'app'@'%'; DROP ROLE r1; DROP PROCEDURE p; CREATE DATABASE fx2; DROP DATABASE fx2;
CREATE TEMPORARY TABLE tmp (a INT); INSERT INTO tmp VALUES (1); DROP TEMPORARY TABLE tmp;
INSERT INTO parent VALUES (50,'mixed'); ANALYZE TABLE parent; FLUSH PRIVILEGES;
FLUSH BINARY LOGS;
-- mysql-payload
SET SESSION binlog_transaction_compression = ON;
BEGIN; INSERT INTO parent VALUES (60,'sixty'); UPDATE parent SET name = 'zipped' WHERE id = 60; INSERT INTO nopk SELECT 9, REPEAT('z', 10) FROM information_schema.columns LIMIT 50; COMMIT;
SET SESSION binlog_transaction_compression = OFF;
FLUSH BINARY LOGS;
-- mysql-tagged
SET SESSION gtid_next = 'AUTOMATIC:backup_tag'; INSERT INTO parent VALUES (70,'tagged'); INSERT INTO parent VALUES (71,'tagged');
SET SESSION gtid_next = '11111111-2222-3333-4444-555555555555:other:1000000'; INSERT INTO parent VALUES (72,'tagged');
SET SESSION gtid_next = '11111111-2222-3333-4444-555555555555:7'; INSERT INTO parent VALUES (73,'other src');
SET SESSION gtid_next = 'AUTOMATIC'; SET SESSION original_commit_timestamp = 1700000000000000; 
FLUSH BINARY LOGS;
-- mysql-xa
XA START 'one','b',7; INSERT INTO parent VALUES (80,'xa'); XA END 'one','b',7; XA PREPARE 'one','b',7; 
XA COMMIT 'one','b',7;
XA START X'00ff'; INSERT INTO parent VALUES (81,'xa'); XA END X'00ff'; XA PREPARE X'00ff'; XA ROLLBACK X'00ff';
XA START 'onephase'; INSERT INTO parent VALUES (82,'xa1'); XA END 'onephase'; XA COMMIT 'onephase' ONE PHASE;
FLUSH BINARY LOGS;
-- mysql-statement
SET SESSION binlog_format = STATEMENT;
CREATE TABLE auto (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(20), r DOUBLE);
SET @u = 'value', @n = NULL, @i = -5, @d = 1.25, @f = 2.5e0; INSERT INTO auto (a, r) VALUES (@u, RAND()), (@n, @f); UPDATE auto SET a = CONCAT(@i, @d) WHERE id = LAST_INSERT_ID();
LOAD DATA LOCAL INFILE '/tmp/load.txt' INTO TABLE auto (a);
SET SESSION binlog_format = ROW;
FLUSH BINARY LOGS;
-- mysql-json
CREATE TABLE js (id INT PRIMARY KEY, j JSON, k JSON, v VARCHAR(10));
INSERT INTO js VALUES (1, '{"a": 1, "b": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}', '[1,2,3]', 'v');
SET SESSION binlog_row_value_options = PARTIAL_JSON;
UPDATE js SET j = JSON_SET(j, '$.a', 2), k = JSON_REPLACE(k, '$[1]', 7) WHERE id = 1;
UPDATE js SET v = 'w' WHERE id = 1;
SET SESSION binlog_row_value_options = '';
FLUSH BINARY LOGS;
