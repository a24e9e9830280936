//! All mutants of a file in one text: each is chosen at run time by its number.

use std::ops::Range;

use crate::find::{Form, Mutant};

/// A woven file.
pub struct Woven {
    pub text: String,
    /// For each mutant that was woven in: its number, where its own code lies in `text`, and what it and its neighbours
    /// of the same place lie in.
    pub places: Vec<(u32, Range<usize>, Range<usize>)>,
}

/// Weaves them in; each with its number.
pub fn weave(text: &str, mutants: &[(u32, Mutant)]) -> Woven {
    let mut order: Vec<&(u32, Mutant)> = mutants.iter().collect();
    // Outer ones first; those of the same place keep their order.
    order.sort_by_key(|(_, mutant)| (mutant.range.start, std::cmp::Reverse(mutant.range.end)));
    let mut weaver = Weaver { text, out: String::new(), places: Vec::new() };
    weaver.stretch(0..text.len(), &order);
    Woven { text: weaver.out, places: weaver.places }
}

struct Weaver<'t> {
    text: &'t str,
    out: String,
    places: Vec<(u32, Range<usize>, Range<usize>)>,
}

impl Weaver<'_> {
    fn stretch(&mut self, range: Range<usize>, mut inside: &[&(u32, Mutant)]) {
        let mut at = range.start;
        while let Some((_, first)) = inside.first() {
            let same = inside.iter().take_while(|(_, other)| other.range == first.range).count();
            let (here, behind) = inside.split_at(same);
            let nested = behind.iter().take_while(|(_, other)| other.range.start < first.range.end).count();
            let (nested, behind) = behind.split_at(nested);
            self.out.push_str(&self.text[at..first.range.start]);
            self.place(here, &first.range, nested);
            at = first.range.end;
            inside = behind;
        }
        self.out.push_str(&self.text[at..range.end]);
    }

    fn place(&mut self, here: &[&(u32, Mutant)], range: &Range<usize>, nested: &[&(u32, Mutant)]) {
        let begin = self.out.len();
        let mut own = Vec::new();
        let (mut open, mut close) = (0, 0);
        for (number, mutant) in here {
            let start = self.out.len();
            let chosen = format!("crate::woven::mutant({number})");
            let code = match &mutant.form {
                Form::Returns(value) => format!(" if {chosen} {{ return {value}; }}"),
                Form::NoArm => format!(" if !{chosen}"),
                Form::LeftOut => {
                    close += 1;
                    format!("if !{chosen} {{ ")
                }
                Form::Instead(with) => {
                    open += 1;
                    let word = if open == 1 { "(if" } else { " else if" };
                    format!("{word} {chosen} {{ {with} }}")
                }
            };
            self.out.push_str(&code);
            own.push((*number, start..self.out.len()));
        }
        if open > 0 {
            self.out.push_str(" else { ");
        }
        self.stretch(range.clone(), nested);
        if open > 0 {
            self.out.push_str(" })");
        }
        self.out.push_str(&" }".repeat(close));
        let whole = begin..self.out.len();
        self.places.extend(own.into_iter().map(|(number, own)| (number, own, whole.clone())));
    }
}

/// The module that each mutated crate is given: asks the environment once which mutant is chosen, and writes down
/// which ones a run came by.
pub const CHOOSER: &str = r#"
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<u32> =
    LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0));
static REACHED: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANTS_REACHED")?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    Some(Mutex::new(file.expect("the file of reached mutants")))
});
static SEEN: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];

pub(crate) fn mutant(number: u32) -> bool {
    if let Some(file) = &*REACHED
        && !SEEN[number as usize].swap(true, Ordering::Relaxed)
    {
        let mut file = file.lock().expect("nobody panics with it");
        file.write_all(format!("{number}\n").as_bytes()).expect("the file of reached mutants");
    }
    *CHOSEN == number
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::mutants;

    /// What is left of a woven text when one mutant is chosen can only be told by running it; here, that all the
    /// pieces stand in their places.
    #[test]
    fn nested_changes_stand_within_each_other() {
        let text = "fn f(a: u32, b: u32) -> bool { if a < b + 1 { g(a); } a == b }";
        let found: Vec<(u32, Mutant)> = (1..).zip(mutants(text).expect("it is Rust")).collect();
        let woven = weave(text, &found);
        syn::parse_file(&woven.text).expect("still Rust");
        let whats: Vec<&str> = found.iter().map(|(_, mutant)| mutant.what.as_str()).collect();
        assert_eq!(
            whats,
            [
                "returns true",
                "returns false",
                "a < b + 1 -> true",
                "a < b + 1 -> false",
                "a < b + 1 -> <=",
                "a < b + 1 -> >=",
                "b + 1 -> -",
                "b + 1 -> *",
                "without g(a);",
                "a == b -> !="
            ]
        );
        assert_eq!(woven.places.len(), found.len());
        for (number, own, whole) in &woven.places {
            assert!(woven.text[own.clone()].contains(&format!("mutant({number})")));
            assert!(whole.start <= own.start && own.end <= whole.end);
        }
        assert!(woven.text.contains("(if crate::woven::mutant(7) { (b) - (1) } else if crate::woven::mutant(8) { (b) * (1) } else { b + 1 })"));
    }

    #[test]
    fn tests_constants_and_hints_are_left_alone() {
        let text = "const A: u32 = 1 + 2; const fn c() -> u32 { 1 + 2 } #[cfg(test)] mod tests { fn f() -> u32 { 1 + 2 } }
            fn g() { let x = Vec::<u8>::with_capacity(1 + 2); if let Some(1) = h() && true {} let [_] = [0; 1 + 0]; }";
        let found = mutants(text).expect("it is Rust");
        assert_eq!(found.iter().map(|mutant| mutant.what.as_str()).collect::<Vec<_>>(), ["returns ()"]);
    }
}
