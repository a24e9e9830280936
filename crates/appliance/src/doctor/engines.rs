//! Engines that a restored server would not have.
//!
//! A private server starts without the source's option files, and so without the plugins that they load. What INSTALL loads is
//! kept in `mysql.plugin`, which is part of every backup. A table of an engine that is not there is copied where the source
//! copies it, but a definition on it in the log ends a restore with the server's error 1286.

use super::{Finding, Grade, Sql, USER_TABLES, named_tables};

/// Tables whose engine a plugin brings that only an option loads; none where there are none.
pub(super) fn loaded_by_options(sql: &mut dyn Sql) -> Option<Finding> {
    let query = format!(
        "SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME, ' (', p.PLUGIN_NAME, ' of ', p.PLUGIN_LIBRARY, ')') \
         FROM information_schema.TABLES t JOIN information_schema.PLUGINS p ON p.PLUGIN_NAME = t.ENGINE \
         WHERE {USER_TABLES} AND p.PLUGIN_TYPE = 'STORAGE ENGINE' AND p.PLUGIN_LIBRARY IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM mysql.plugin k WHERE k.name = p.PLUGIN_NAME) ORDER BY 1"
    );
    let say = |names: &str| {
        (
            format!(
                "of engines that an option loads (plugin_load_add): {names}; a restored server has no such option, and a \
                 CREATE or ALTER of them in the log ends a restore with error 1286"
            ),
            "ALTER TABLE … ENGINE = InnoDB, or take the option away, start the server again and INSTALL PLUGIN … SONAME '…' \
             before the next backup, and restore with a server program that has that library"
                .to_owned(),
        )
    };
    let found = named_tables(sql, "plugin_engines", &query, "", say);
    (found.grade != Grade::Ok).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with tables of such engines.
    struct Tables(Result<Vec<&'static str>, &'static str>);

    impl Sql for Tables {
        fn rows(&mut self, _: &str) -> Result<Vec<Vec<Option<String>>>, String> {
            let rows = self.0.clone().map_err(str::to_owned)?;
            Ok(rows.into_iter().map(|name| vec![Some(name.to_owned())]).collect())
        }
    }

    #[test]
    fn a_table_of_an_engine_that_an_option_loads_is_named_with_its_library_and_none_is_no_finding() {
        let found = loaded_by_options(&mut Tables(Ok(vec!["shop.log (ARCHIVE of ha_archive.so)"]))).unwrap();
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.found.contains("shop.log (ARCHIVE of ha_archive.so)"), "{}", found.found);
        assert!(found.fix.as_deref().is_some_and(|fix| fix.contains("INSTALL PLUGIN")), "{found:?}");
        assert_eq!(loaded_by_options(&mut Tables(Ok(vec![]))), None);
        let unknown = loaded_by_options(&mut Tables(Err("SELECT command denied"))).unwrap();
        assert!(unknown.found.contains("could not be checked: SELECT command denied"), "{unknown:?}");
    }
}
