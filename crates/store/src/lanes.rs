//! Threads for the lanes of Argon2, as many as the system grants.
//!
//! The hash spreads its lanes, even a single one, over the pool that its thread belongs to. A thread of none gets the
//! pool of the whole process, with a thread for each core; where the system refuses one of them, that pool panics.

use rayon::ThreadPoolBuilder;

/// Runs `work` in a pool that lasts no longer, with a thread for each of its lanes and no more than there are cores;
/// here alone, if the system refuses those.
pub(crate) fn side_by_side<T: Send>(lanes: u32, work: impl FnOnce() -> T + Send) -> T {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = cores.min(lanes.max(1) as usize);
    in_pool(ThreadPoolBuilder::new().num_threads(threads), work)
}

fn in_pool<T: Send>(pool: ThreadPoolBuilder, work: impl FnOnce() -> T + Send) -> T {
    if let Ok(pool) = pool.build() {
        return pool.install(work);
    }
    // A pool of this thread alone, in which it stays. Refused if it is in a pool already: then that one serves.
    let _alone = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn without_threads_the_work_is_done_here_and_with_them_again_there() {
        let here = std::thread::current().id();
        let work = || {
            let sum: u32 = (0..1000_u32).into_par_iter().map(|n| n % 7).sum();
            (sum, std::thread::current().id(), rayon::current_num_threads())
        };
        let right = (0..1000_u32).map(|n| n % 7).sum();
        // No address space is left for such a stack.
        let refused = || ThreadPoolBuilder::new().num_threads(2).stack_size(1 << 60);
        assert!(refused().build().is_err());
        for _ in 0..2 {
            assert_eq!(in_pool(refused(), work), (right, here, 1));
        }
        let (sum, there, threads) = in_pool(ThreadPoolBuilder::new().num_threads(2), work);
        assert_eq!((sum, threads), (right, 2));
        assert_ne!(there, here);
    }
}
