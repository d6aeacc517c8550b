//! What happened in a simulation, as a hash that two runs of one seed share, and
//! on demand as text.

use std::{cell::Cell, fmt, rc::Rc};

/// A handle on one simulation's trace; clones share it.
#[derive(Clone, Default)]
pub struct Trace(Rc<State>);

struct State {
    hash: Cell<u64>,
    events: Cell<u64>,
    print: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { hash: Cell::new(FNV_OFFSET), events: Cell::new(0), print: false }
    }
}

/// FNV-1a, 64 bits: small, and good enough to tell two schedules apart.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Trace {
    /// A trace that also prints every event.
    #[must_use]
    pub fn printing() -> Self {
        Self(Rc::new(State { print: true, ..State::default() }))
    }

    /// Notes an event. `words` enter the hash; `text` is made only for printing.
    pub fn note(&self, words: &[u64], text: impl FnOnce() -> String) {
        let mut hash = self.0.hash.get();
        for word in words {
            for byte in word.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            }
        }
        self.0.hash.set(hash);
        self.0.events.set(self.0.events.get() + 1);
        if self.0.print {
            println!("{:>7}  {}", self.0.events.get(), text());
        }
    }

    /// The hash over every event so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.hash.get()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.events.get()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x} after {} events)", self.hash(), self.events())
    }
}
