//! A section of RESULTS.md that a program writes: between two lines that name it. What lies outside is left alone.

use std::fmt::Write as _;

/// A section of the page.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name in the lines around it, which is also what `tools/bench` calls it.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
}

/// What `tools/bench generations` writes.
pub const GENERATIONS: Section = Section { name: "generations", title: "Generations" };

/// What `tools/bench replay` writes.
pub const REPLAY: Section = Section { name: "replay", title: "Replay" };

/// What `tools/bench table` writes.
pub const TABLE: Section = Section { name: "table", title: "One table out of a server" };

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
        let story = if self.story.is_empty() { String::new() } else { format!("{}\n\n", self.story) };
        let _ = writeln!(out, "### {}\n\n{story}{}\n{}", self.title, line(&self.head), line(&rule));
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        out
    }
}

impl Section {
    fn begin(&self) -> String {
        format!("<!-- {0}: written by tools/bench {0} -->", self.name)
    }

    fn end(&self) -> String {
        format!("<!-- end of {} -->", self.name)
    }

    /// The section from its tables.
    pub fn text(&self, preface: &str, tables: &[Table]) -> String {
        let tables: Vec<String> = tables.iter().map(Table::text).collect();
        let (begin, title, end) = (self.begin(), self.title, self.end());
        format!("{begin}\n\n## {title}\n\n{preface}\n\n{}\n{end}\n", tables.join("\n"))
    }

    /// `page` with this section replaced by `text`, or appended if it has none.
    pub fn put_into(&self, page: &str, text: &str) -> String {
        let parts = page.split_once(&self.begin());
        match parts.and_then(|(head, rest)| Some((head, rest.split_once(&self.end())?.1))) {
            Some((head, tail)) => format!("{head}{}{tail}", text.trim_end()),
            None => format!("{}\n\n{text}", page.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_before_and_leaves_the_rest() {
        let mut table = Table::new("T", "how", &["a", "b"]);
        table.row(vec!["1".to_owned(), "2".to_owned()]);
        let (one, two) = (REPLAY.text("one", &[table]), REPLAY.text("two", &[]));
        let page = REPLAY.put_into("# Page\n\ntext\n", &one);
        assert!(page.starts_with("# Page\n\ntext\n\n<!--") && page.contains("| 1 | 2 |"), "{page}");
        let page = REPLAY.put_into(&format!("{page}\nmore\n"), &two);
        assert!(page.contains("two") && !page.contains("| 1 |") && page.ends_with("\nmore\n"), "{page}");
        assert_eq!(REPLAY.put_into(&page, &two), page);
    }
}
