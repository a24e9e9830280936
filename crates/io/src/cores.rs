//! No memory of this process in a file that nobody thinks of: keys, passphrases and rows are in it.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From here on this process leaves no core, whatever its end, and no other process of the same user may look into its
/// memory. What it starts leaves none either: a limit is handed down. Best effort: a system that knows one of the two less
/// keeps the other.
pub fn forbid() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    // A program that takes cores through a pipe gets them whatever the limit says; of this process it gets none.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
