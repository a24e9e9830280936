-- Run on MariaDB 10.11.19 (--server-id=21 --log-bin --binlog-format=ROW --gtid-domain-id=7, local_infile on); each FLUSH ends one fixture.
RESET MASTER;
-- mariadb-rows
CREATE DATABASE fx; USE fx;
CREATE TABLE types (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, t TINYINT, s SMALLINT, m MEDIUMINT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
 d1 DECIMAL(5,2), d2 DECIMAL(65,30), f FLOAT, dbl DOUBLE, bits BIT(13), y YEAR, dt DATE, ti TIME(0), ti2 TIME(2), ti6 TIME(6),
 dtm DATETIME, dtm3 DATETIME(3), ts TIMESTAMP(6) NULL, c CHAR(10), clong CHAR(200) CHARACTER SET utf8mb4, v VARCHAR(20), vlong VARCHAR(1000), bin BINARY(4), vb VARBINARY(300),
 tb TINYBLOB, bl BLOB, mb MEDIUMTEXT, lb LONGBLOB, e ENUM('a','b','c'), st SET('x','y','z'), j JSON, g GEOMETRY, u UUID, ip INET6, ip4 INET4,
 cb BLOB COMPRESSED, cv VARCHAR(500) COMPRESSED,
 gen INT GENERATED ALWAYS AS (t + 1) STORED, genv INT GENERATED ALWAYS AS (t + 2) VIRTUAL, inv INT INVISIBLE DEFAULT 4);
INSERT INTO types (t,s,m,b,bu,d1,d2,f,dbl,bits,y,dt,ti,ti2,ti6,dtm,dtm3,ts,c,clong,v,vlong,bin,vb,tb,bl,mb,lb,e,st,j,g,u,ip,ip4,cb,cv) VALUES
 (-128,-32768,16777215,-9223372036854775808,18446744073709551615,-999.99,'12345678901234567890123456789012345.123456789012345678901234567890',1.5,-2.25,b'1010101010101',2026,'2026-11-21','-838:59:59','-00:00:01.50','12:34:56.789012',
 '2026-11-21 01:02:03','1000-01-01 00:00:00.001','2026-11-21 01:02:03.456789','abc',REPEAT('é',50),'short',REPEAT('long',80),X'00FF00FF',X'0102','tiny','blob',REPEAT('m',100),X'00','b','x,z','{"a":[1,2,{"b":null}]}',ST_GeomFromText('POINT(1 2)'),
 '3e11fa47-71ca-11e1-9e33-c80aa9429562','fe80::1','10.0.0.1',REPEAT('c',300),REPEAT('d',300)),
 (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
UPDATE types SET t = 7, v = 'other' WHERE id = 1;
DELETE FROM types WHERE id = 2;
CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(10));
CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1,'one'),(2,'two'); INSERT INTO child VALUES (10,1),(11,1),(12,2);
DELETE FROM parent WHERE id = 1;
SET SESSION foreign_key_checks = 0; INSERT INTO child VALUES (13,99); SET SESSION foreign_key_checks = 1;
BEGIN; INSERT INTO parent VALUES (3,'three'); SAVEPOINT a; INSERT INTO parent VALUES (4,'four'); ROLLBACK TO a; INSERT INTO child VALUES (14,3); COMMIT;
SET SESSION binlog_row_image = MINIMAL; UPDATE parent SET name = 'TWO' WHERE id = 2; DELETE FROM parent WHERE id = 3; SET SESSION binlog_row_image = FULL;
CREATE TABLE nopk (a INT, b VARCHAR(10)); INSERT INTO nopk VALUES (1,'x'),(1,'x'),(2,NULL);
SET GLOBAL binlog_row_metadata = FULL; 
CREATE TABLE ckey (a VARCHAR(10) COLLATE latin1_bin, b BIGINT, c DATETIME, v INT, PRIMARY KEY (c, a)); 
INSERT INTO ckey VALUES ('k1',1,'2026-01-01 00:00:00',5),('k2',2,'2026-01-02 00:00:00',6);
INSERT INTO types (t) VALUES (3);
SET GLOBAL binlog_row_metadata = NO_LOG;
FLUSH BINARY LOGS;
-- mariadb-compressed
SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 30;
INSERT INTO nopk SELECT 9, REPEAT('z', 10) FROM information_schema.columns LIMIT 50; UPDATE nopk SET b = 'yyyyyyyyyy' WHERE a = 9 LIMIT 20; DELETE FROM nopk WHERE a = 9 LIMIT 30;
CREATE TABLE comp (a INT COMMENT 'a comment that is long enough to be worth compressing, long enough, long enough, long enough');
SET GLOBAL log_bin_compress = OFF;
FLUSH BINARY LOGS;
-- mariadb-ddl
SET SESSION time_zone = '+05:00', sql_mode = 'ANSI_QUOTES', auto_increment_increment = 3, auto_increment_offset = 2, lc_time_names = 'de_DE';
SET timestamp = 1700000000.123456;
CREATE TABLE "a b" (id INT PRIMARY KEY, w DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6));
SET timestamp = DEFAULT; SET SESSION sql_mode = DEFAULT, time_zone = DEFAULT, auto_increment_increment = 1, auto_increment_offset = 1, lc_time_names = DEFAULT;
SET SESSION binlog_alter_two_phase = ON; ALTER TABLE `a b` ADD COLUMN x INT; ALTER TABLE nopk ADD UNIQUE KEY broken (a); SET SESSION binlog_alter_two_phase = OFF;
RENAME TABLE `a b` TO ab; TRUNCATE ab;
CREATE TABLE ctas AS SELECT * FROM parent; CREATE OR REPLACE TABLE ctas (x INT) SELECT 1 AS x;
CREATE USER 'app'@'%' IDENTIFIED BY 'secret'; GRANT SELECT, INSERT ON fx.* TO 'app'@'%'; CREATE ROLE r1; GRANT r1 TO 'app'@'%'; SET PASSWORD FOR 'app'@'%' = PASSWORD('other');
CREATE TRIGGER tr BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = UPPER(NEW.name);
CREATE PROCEDURE p() SELECT 1;
CREATE VIEW vw AS SELECT id FROM parent;
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM fx.nopk;
CREATE SEQUENCE sq START WITH 10 CACHE 5; SELECT NEXTVAL(sq); SELECT SETVAL(sq, 100); ALTER SEQUENCE sq RESTART 500;
CREATE TABLE sv (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING; INSERT INTO sv VALUES (1,1); UPDATE sv SET b = 2; DELETE FROM sv;
DROP TABLE ab, ctas; DROP VIEW vw; DROP EVENT ev; DROP USER 'app'@'%'; DROP ROLE r1; DROP PROCEDURE p; CREATE DATABASE fx2; DROP DATABASE fx2;
CREATE TEMPORARY TABLE tmp (a INT); INSERT INTO tmp VALUES (1); DROP TEMPORARY TABLE tmp;
INSERT INTO parent VALUES (50,'mixed'); ANALYZE TABLE parent; OPTIMIZE TABLE parent; FLUSH PRIVILEGES;
FLUSH BINARY LOGS;
-- mariadb-xa
XA START 'one','b',7; INSERT INTO parent VALUES (80,'xa'); XA END 'one','b',7; XA PREPARE 'one','b',7; 
XA COMMIT 'one','b',7;
XA START X'00ff'; INSERT INTO parent VALUES (81,'xa'); XA END X'00ff'; XA PREPARE X'00ff'; XA ROLLBACK X'00ff';
XA START 'onephase'; INSERT INTO parent VALUES (82,'xa1'); XA END 'onephase'; XA COMMIT 'onephase' ONE PHASE;
FLUSH BINARY LOGS;
-- mariadb-statement
SET SESSION binlog_format = STATEMENT;
CREATE TABLE auto (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(20), r DOUBLE);
SET @u = 'value', @n = NULL, @i = -5, @d = 1.25, @f = 2.5e0; INSERT INTO auto (a, r) VALUES (@u, RAND()), (@n, @f); UPDATE auto SET a = CONCAT(@i, @d) WHERE id = LAST_INSERT_ID();
LOAD DATA LOCAL INFILE '/tmp/load.txt' INTO TABLE auto (a);
SET SESSION binlog_format = ROW;
SET SESSION gtid_domain_id = 3; INSERT INTO nopk VALUES (77, 'domain 3'); SET SESSION gtid_domain_id = 7;
FLUSH BINARY LOGS;
SELECT @@gtid_binlog_state;
