//! A target, and how one input is run.

use crate::Labels;
use holdfast_io::BufPool;

/// Bytes of an input at most; longer ones are cut. `fuzz/run` gives libFuzzer the same limit.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// Something to throw bytes at.
pub struct Target {
    /// Its name: of its module, of its binary in `fuzz/`, of its corpus.
    pub name: &'static str,
    /// What is fuzzed.
    pub about: &'static str,
    /// Takes an input, says what became of it, and panics when something is wrong.
    pub run: fn(&[u8], &mut Labels),
    /// Heap that a run may hold at any moment, in bytes. What a target builds once, for all inputs,
    /// does not count.
    pub heap_bytes_max: u64,
    /// Inputs to begin with: a valid one of each kind.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Heap held at most, in bytes.
    pub heap_bytes: u64,
}

impl Target {
    /// Runs one input and measures it.
    ///
    /// # Panics
    /// If the input breaks something: the bound on memory, a property that the target checks, or an
    /// assertion of the code that is driven.
    pub fn check(&self, input: &[u8], labels: &mut Labels) -> Taken {
        let input = &input[..input.len().min(INPUT_BYTES_MAX)];
        let taken = allocation_counter::measure(|| (self.run)(input, labels));
        assert!(
            taken.bytes_max <= self.heap_bytes_max,
            "{}: {} bytes of heap for an input of {}; the bound is {}",
            self.name,
            taken.bytes_max,
            input.len(),
            self.heap_bytes_max
        );
        Taken { heap_bytes: taken.bytes_max }
    }
}

/// Bytes of [`shared_pool`].
const POOL_BYTES: usize = 4 << 20;

/// Buffers that all runs of a thread share, so that a run need not have the heap clear them. What
/// does not fit any more comes from the heap, and counts.
pub(crate) fn shared_pool() -> BufPool {
    thread_local! {
        static POOL: BufPool = uncounted(|| BufPool::new(POOL_BYTES));
    }
    POOL.with(BufPool::clone)
}

/// What `build` makes, not counted as taken by the run at hand: for what is made once, for all inputs.
pub(crate) fn uncounted<T>(build: impl FnOnce() -> T) -> T {
    let mut built = None;
    allocation_counter::opt_out(|| built = Some(build()));
    match built {
        Some(built) => built,
        None => unreachable!("it was called"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greedy(input: &[u8], _: &mut Labels) {
        std::hint::black_box(vec![1u8; usize::from(input[0]) << 10]);
    }

    const GREEDY: Target = Target {
        name: "greedy",
        about: "takes as many KiB as its input says",
        run: greedy,
        heap_bytes_max: 100 << 10,
        seeds: Vec::new,
    };

    #[test]
    fn what_a_run_holds_is_measured() {
        let taken = GREEDY.check(&[100], &mut Labels::none());
        assert_eq!(taken.heap_bytes, 100 << 10);
    }

    #[test]
    #[should_panic(expected = "103424 bytes of heap for an input of 1; the bound is 102400")]
    fn a_run_that_takes_more_than_declared_fails() {
        GREEDY.check(&[101], &mut Labels::none());
    }
}
