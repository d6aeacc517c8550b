//! What happened in a simulation, as a hash that two runs of one seed share, and
//! on demand as text: one line an event, with its simulated time, where, and what.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    io::{self, Write},
    rc::Rc,
};

/// A handle on one simulation's trace; clones share it.
#[derive(Clone, Default)]
pub struct Trace {
    state: Rc<State>,
    node: Option<usize>,
}

struct State {
    hash: Cell<u64>,
    events: Cell<u64>,
    now_ns: Cell<u64>,
    text: Text,
}

/// What becomes of the text.
enum Text {
    /// It is not made.
    None,
    Printed,
    /// The last so many lines are kept.
    Kept(usize, RefCell<VecDeque<String>>),
}

impl Default for State {
    fn default() -> Self {
        Self { hash: Cell::new(SEED), events: Cell::new(0), now_ns: Cell::new(0), text: Text::None }
    }
}

/// A multiplicative hash over words, with odd constants without structure (the
/// fractions of the golden ratio and of pi): quick, and good enough to tell two
/// schedules apart.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

impl Trace {
    fn with(text: Text) -> Self {
        Self { state: Rc::new(State { text, ..State::default() }), node: None }
    }

    /// A trace that also prints every event.
    #[must_use]
    pub fn printing() -> Self {
        Self::with(Text::Printed)
    }

    /// A trace that keeps its last `lines` lines.
    #[must_use]
    pub fn keeping(lines: usize) -> Self {
        Self::with(Text::Kept(lines, RefCell::default()))
    }

    /// The same trace, for what happens at `node`.
    #[must_use]
    pub fn of_node(&self, node: usize) -> Self {
        Self { node: Some(node), ..self.clone() }
    }

    /// Simulated time is `now_ns` from now on.
    pub fn at(&self, now_ns: u64) {
        self.state.now_ns.set(now_ns);
    }

    /// Notes an event. `words` and the time enter the hash; `text` is made only for
    /// people.
    pub fn note(&self, words: &[u64], text: impl FnOnce() -> String) {
        let State { hash, events, now_ns, text: kept } = &*self.state;
        let node = self.node.map_or(0, |node| node as u64 + 1);
        let mixed = words.iter().chain([&now_ns.get(), &node]).fold(hash.get(), |hash, word| {
            let mixed = (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
            mixed ^ mixed >> 32
        });
        hash.set(mixed);
        events.set(events.get() + 1);
        if matches!(kept, Text::None) {
            return;
        }
        let (seconds, micros) = (now_ns.get() / 1_000_000_000, now_ns.get() / 1000 % 1_000_000);
        let node = self.node.map_or_else(String::new, |node| format!("{node}: "));
        let line = format!("{:>7} {seconds:>4}.{micros:06}  {node}{}", events.get(), text());
        match kept {
            Text::None => {}
            Text::Printed => {
                // Nobody may read to the end.
                let _ = writeln!(io::stdout(), "{line}");
            }
            Text::Kept(lines, kept) => {
                let mut kept = kept.borrow_mut();
                if kept.len() == *lines {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        }
    }

    /// The hash over every event so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.state.hash.get()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.events.get()
    }

    /// The lines that were kept.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        match &self.state.text {
            Text::Kept(_, kept) => kept.borrow().iter().cloned().collect(),
            Text::None | Text::Printed => Vec::new(),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x} after {} events)", self.hash(), self.events())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_the_time_and_the_node_count() {
        let hash = |ns, node, words: &[u64]| {
            let trace = Trace::default().of_node(node);
            trace.at(ns);
            trace.note(words, String::new);
            trace.hash()
        };
        let hashes = [
            hash(1, 2, &[3, 4]),
            hash(2, 2, &[3, 4]),
            hash(1, 3, &[3, 4]),
            hash(1, 2, &[4, 3]),
            hash(1, 2, &[3, 5]),
        ];
        for (index, one) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(one), "hash {index}");
        }
        assert_eq!(hash(1, 2, &[3, 4]), hashes[0]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let trace = Trace::keeping(2);
        for (word, ns) in [(1, 10), (2, 1_500_000_000), (3, 12_000_001_000)] {
            trace.at(ns);
            trace.of_node(1).note(&[word], || format!("event {word}"));
        }
        let kept = trace.kept();
        assert_eq!(kept, ["      2    1.500000  1: event 2", "      3   12.000001  1: event 3"]);
    }
}
