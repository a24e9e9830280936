//! The same generations through the programs of Holdfast and of rustic, each called as its users call it: what each
//! of them adds to its repository.

use std::path::Path;

use super::Failed;
use super::tables::Tables;
use crate::rig::folder::{bytes_below, must_equal, remove};
use crate::rig::measure::to_its_end;
use crate::rig::tools::{Place, Tool};
use crate::rows::Churn;

/// What a tool stored over the generations, parity apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added {
    /// By the first backup.
    pub first_bytes: u64,
    /// By the second one.
    pub second_bytes: u64,
    /// By all behind the first one.
    pub rest_bytes: u64,
}

/// Backs `generations` generations up with one tool, in `home`, which is emptied; the newest one is restored and
/// compared.
///
/// # Errors
/// The tool fails, or restores something else.
pub fn added(
    tool: &dyn Tool,
    home: &Path,
    mut tables: Tables,
    generations: u32,
    permille: u64,
    churn: Churn,
) -> Result<Added, Failed> {
    remove(home)?;
    // One level deeper than what is backed up: a folder that looks like a server's would be started when restored.
    let source = home.join("source");
    tables.write_to(&source.join("data"))?;
    let place = Place::new(&home.join("work"), &source)?;
    let log = place.home.join("said");
    for mut command in tool.init(&place) {
        to_its_end(&mut command, &log)?;
    }
    let stored = || -> Result<u64, Failed> {
        Ok(bytes_below(&place.repo)?.saturating_sub(tool.parity_bytes(&place)?))
    };
    let mut added = Added::default();
    let mut before = stored()?;
    for number in 0..=generations {
        if number > 0 {
            tables.age(permille, churn);
            tables.write_to(&source.join("data"))?;
        }
        to_its_end(&mut tool.backup(&place, number + 1), &log)?;
        let now = stored()?;
        let more = now.saturating_sub(before);
        before = now;
        match number {
            0 => added.first_bytes = more,
            1 => (added.second_bytes, added.rest_bytes) = (more, more),
            _ => added.rest_bytes += more,
        }
    }
    std::fs::create_dir_all(&place.restored)?;
    to_its_end(&mut tool.restore(&place, generations + 1), &log)?;
    must_equal(tool.name(), &place.source, &tool.restored(&place))?;
    remove(home)?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::tools::Copy;

    #[test]
    fn what_a_tool_adds_is_counted_by_generation() {
        let top = tempfile::tempdir().unwrap();
        let tables = Tables::new(1, 8, 1);
        let bytes = tables.bytes();
        let added = added(&Copy, &top.path().join("home"), tables, 2, 100, Churn::Uniform).unwrap();
        // A copy over a copy adds nothing.
        assert_eq!((added.first_bytes, added.second_bytes, added.rest_bytes), (bytes, 0, 0));
    }
}
