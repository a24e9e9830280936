//! Threads for segments whose indexes are read side by side, as many as the system grants.
//!
//! Rayon's pool of the whole process panics where one of its threads is refused. Here the work is then done by fewer of
//! them, in the end by the one that wanted help.

use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool with a thread for each core, or with fewer; `None`: with none.
pub(crate) struct Lanes(Option<ThreadPool>);

impl Lanes {
    /// Those of this process: made once, with what the system granted then.
    pub(crate) fn get() -> &'static Self {
        static LANES: OnceLock<Lanes> = OnceLock::new();
        LANES.get_or_init(|| {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Self::of(cores, ThreadPoolBuilder::new)
        })
    }

    fn of(mut threads: usize, builder: impl Fn() -> ThreadPoolBuilder) -> Self {
        while threads > 1 {
            if let Ok(pool) = builder().num_threads(threads).build() {
                return Self(Some(pool));
            }
            threads /= 2;
        }
        Self(None)
    }

    /// Threads that work at once.
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// What `each` makes of the items, in their order.
    pub(crate) fn map<'i, T: Sync, R: Send>(
        &self,
        items: &'i [T],
        each: impl Fn(&'i T) -> R + Sync + Send,
    ) -> Vec<R> {
        match &self.0 {
            Some(pool) => pool.install(|| items.par_iter().map(each).collect()),
            None => items.iter().map(each).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::thread::{ThreadId, current};

    #[test]
    fn what_the_system_refuses_is_done_by_fewer_threads_or_here() {
        let items: Vec<u32> = (0..100).collect();
        let run = |lanes: &Lanes| -> Vec<(u32, ThreadId)> { lanes.map(&items, |n| (n + 1, current().id())) };
        let right: Vec<u32> = (1..101).collect();
        let numbers = |done: &[(u32, ThreadId)]| done.iter().map(|(n, _)| *n).collect::<Vec<_>>();
        // No address space is left for such a stack.
        let refused = || ThreadPoolBuilder::new().stack_size(1 << 60);
        assert!(refused().num_threads(2).build().is_err());

        let alone = run(&Lanes::of(4, refused));
        assert_eq!(numbers(&alone), right);
        assert!(alone.iter().all(|(_, thread)| *thread == current().id()));

        let asked = Cell::new(0);
        let fewer = Lanes::of(4, || {
            asked.set(asked.get() + 1);
            if asked.get() == 1 { refused() } else { ThreadPoolBuilder::new() }
        });
        assert_eq!((asked.get(), fewer.count()), (2, 2));
        let there = run(&fewer);
        assert_eq!(numbers(&there), right);
        assert!(there.iter().all(|(_, thread)| *thread != current().id()));
    }
}
