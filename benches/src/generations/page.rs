//! The section of RESULTS.md that the generations write.

use std::fmt::Write as _;

/// Lines around the section: what is between them is written anew, the rest of the page is left alone.
const BEGIN: &str = "<!-- generations: written by tools/bench generations -->";
const END: &str = "<!-- end of generations -->";

/// A table of the section.
#[derive(Clone, Debug, Default)]
pub struct Table {
    title: String,
    story: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table under a title, with a sentence or two on how it was taken.
    pub fn new(title: &str, story: &str, head: &[&str]) -> Self {
        let head = head.iter().map(|&h| h.to_owned()).collect();
        Self { title: title.to_owned(), story: story.to_owned(), head, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let rule: Vec<String> = self.head.iter().map(|_| "---".to_owned()).collect();
        // Writing to a string cannot fail.
        let _ =
            writeln!(out, "### {}\n\n{}\n\n{}\n{}", self.title, self.story, line(&self.head), line(&rule));
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        out
    }
}

/// The section from its tables.
pub fn section(preface: &str, tables: &[Table]) -> String {
    let tables: Vec<String> = tables.iter().map(Table::text).collect();
    format!("{BEGIN}\n\n## Generations\n\n{preface}\n\n{}\n{END}\n", tables.join("\n"))
}

/// `page` with its section replaced, or appended if it has none.
pub fn put_into(page: &str, section: &str) -> String {
    let parts = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    match parts {
        Some((head, tail)) => format!("{head}{}{tail}", section.trim_end()),
        None => format!("{}\n\n{section}", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_before_and_leaves_the_rest() {
        let mut table = Table::new("T", "how", &["a", "b"]);
        table.row(vec!["1".to_owned(), "2".to_owned()]);
        let (one, two) = (section("one", &[table]), section("two", &[]));
        let page = put_into("# Page\n\ntext\n", &one);
        assert!(page.starts_with("# Page\n\ntext\n\n<!--") && page.contains("| 1 | 2 |"), "{page}");
        let page = put_into(&format!("{page}\nmore\n"), &two);
        assert!(page.contains("two") && !page.contains("| 1 |") && page.ends_with("\nmore\n"), "{page}");
        assert_eq!(put_into(&page, &two), page);
    }
}
