/*!40101 SET NAMES binary*/;
CREATE TABLE `a_view`(
`n` int
)ENGINE=MyISAM;
