/*!40101 SET NAMES binary*/;
CREATE TABLE `z_view`(
`n` int
)ENGINE=MyISAM;
