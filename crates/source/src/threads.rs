//! Threads of a copy. The system may refuse one: that ends the copy with an error, or leaves the work to those that are
//! there, and is no panic.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::Error;

/// Begins a thread that is to `doing`, such as "store blocks".
pub(crate) fn begin<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    builder().spawn_scoped(scope, work).map_err(|source| Error::NoThread { doing, source })
}

#[cfg(not(test))]
fn builder() -> Builder {
    Builder::new()
}

#[cfg(test)]
fn builder() -> Builder {
    if tests::is_refused() { Builder::new().stack_size(1 << 60) } else { Builder::new() }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// How many threads this one may still begin; `None`: any number.
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) fn is_refused() -> bool {
        let left = LEFT.get();
        LEFT.set(left.map(|left| left.saturating_sub(1)));
        left == Some(0)
    }

    /// Does `work`; this thread begins so many others meanwhile, and is refused any more.
    pub(crate) fn with_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
        LEFT.set(Some(threads));
        let done = work();
        LEFT.set(None);
        done
    }
}
