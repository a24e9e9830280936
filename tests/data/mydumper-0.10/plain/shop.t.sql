/*!40101 SET NAMES binary*/;
/*!40014 SET FOREIGN_KEY_CHECKS=0*/;
/*!40103 SET TIME_ZONE='+00:00' */;
INSERT INTO `t` (`id`,`v`,`b`,`at`,`d`) VALUES
(1,"it\'s; \\ \"x\";\n","\0\'\\\n\Z","2020-01-01 00:00:00","2020-02-29"),
(2,NULL,NULL,NULL,NULL),
(3,"ä€😀","",NULL,NULL);
