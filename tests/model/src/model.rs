//! The protocol: what may happen next, and what it does.

use crate::bounds::Bounds;
use crate::property;
use crate::state::{NODES, REPLICAS, Replica, State};
use stateright::{Model, Property};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The protocol within bounds.
#[derive(Debug)]
pub struct Protocol {
    /// How far it goes.
    pub bounds: Bounds,
    /// What must be seen and has been, a bit each: the checker would note it down every time.
    goals: AtomicU32,
}

/// One step. Engines are numbered in the order that they came, replicas as they are sorted in
/// the state before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named for what they are")]
pub enum Action {
    /// The metadata group grants an epoch to an engine on a node. One that ran there is gone.
    Grant { node: u8 },
    /// A replica promises an engine its epoch.
    Fence { engine: usize, replica: usize },
    /// The engine hears of the promise, and of what the replica's log holds.
    Promise { engine: usize, replica: usize },
    /// The replica's log is cut where it parts from the engine's.
    Truncate { engine: usize, replica: usize },
    /// The engine asks everyone again.
    ChooseAgain { engine: usize },
    /// The engine writes the first record of its epoch.
    Start { engine: usize },
    /// A client's write gets its LSN.
    Write { engine: usize },
    /// A record reaches a replica.
    Append { engine: usize, replica: usize },
    /// What a replica has in memory is on disk, and is acknowledged.
    Flush { replica: usize },
    /// The engine finds one more record committed, and answers the client.
    Commit { engine: usize },
    /// A replica hears what is committed, and applies it.
    Apply { engine: usize, replica: usize },
    /// The engine asks for a set with or without the replica.
    Propose { engine: usize, replica: usize },
    /// The metadata group decides.
    Decide { engine: usize },
    /// The engine hears.
    Learn { engine: usize },
    /// A replica's process restarts; what was not on disk is gone.
    Crash { replica: usize },
    /// And of what was on disk, all records above `last` are gone too, perhaps with the promise.
    Damage { replica: usize, last: u8, forgets: bool },
    /// A damaged replica takes the catalogue's epoch for its promise.
    Floor { replica: usize },
    /// A damaged replica that is a learner drops what it has not applied, or is done with that.
    Reset { replica: usize, drops: bool },
    /// A node's lease of a replica is renewed, or the grant is on its way.
    Renew { node: u8, replica: usize },
    /// The grant arrives.
    Granted { node: u8, replica: usize },
    /// Time passes.
    Tick,
    /// A client's read is answered.
    Read { engine: usize, replica: usize },
}

impl Protocol {
    /// The model within `bounds`.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, goals: AtomicU32::new(0) }
    }

    /// Whether `happens`, and has not before.
    pub(crate) fn first(
        &self,
        goal: u32,
        state: &State,
        happens: impl FnOnce(&State) -> bool,
    ) -> bool {
        let bit = 1 << goal;
        self.goals.load(Relaxed) & bit == 0
            && happens(state)
            && self.goals.fetch_or(bit, Relaxed) & bit == 0
    }

    fn first_state(&self) -> State {
        let mut replicas = [Replica::default(); REPLICAS];
        for (at, replica) in replicas.iter_mut().enumerate() {
            replica.member = at < self.bounds.members as usize;
            replica.home = (self.bounds.colocated && at < NODES).then_some(at as u8);
        }
        self.normal(State::new(replicas))
    }

    /// What `action` makes of `state`; `None` when it cannot happen.
    fn step(&self, state: &State, action: Action) -> Option<State> {
        use Action as A;
        match action {
            A::Grant { node } => self.grant(state, node),
            A::Fence { engine, replica } => self.fence(state, engine, replica),
            A::Promise { engine, replica } => self.promise(state, engine, replica),
            A::Truncate { engine, replica } => self.truncate(state, engine, replica),
            A::ChooseAgain { engine } => self.choose_again(state, engine),
            A::Start { engine } => self.start(state, engine),
            A::Write { engine } => self.write(state, engine),
            A::Append { engine, replica } => self.append(state, engine, replica),
            A::Flush { replica } => self.flush(state, replica),
            A::Commit { engine } => self.commit(state, engine),
            A::Apply { engine, replica } => self.apply(state, engine, replica),
            A::Propose { engine, replica } => self.propose(state, engine, replica),
            A::Decide { engine } => self.decide(state, engine),
            A::Learn { engine } => self.learn(state, engine),
            A::Crash { replica } => self.crash(state, replica),
            A::Damage { replica, last, forgets } => self.damage(state, replica, last, forgets),
            A::Floor { replica } => self.floor(state, replica),
            A::Reset { replica, drops } => self.reset(state, replica, drops),
            A::Renew { node, replica } => self.renew(state, node, replica),
            A::Granted { node, replica } => self.granted(state, node, replica),
            A::Tick => self.tick(state),
            A::Read { engine, replica } => self.read(state, engine, replica),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let bounds = &self.bounds;
        if state.granted < bounds.engines {
            // Nodes are alike until one of them has an engine.
            let nodes = if state.granted == 0 { 1 } else { NODES as u8 };
            actions.extend((0..nodes).map(|node| Action::Grant { node }));
        }
        // Of replicas that are the same, one will do.
        let twin = |at: usize| at > 0 && state.replicas[at] == state.replicas[at - 1];
        // Learners that never come to count are left out.
        let counts = |at: usize| state.replicas[at].member || bounds.changes > 0;
        let replicas: [Option<usize>; REPLICAS] =
            std::array::from_fn(|at| (counts(at) && !twin(at)).then_some(at));
        let replicas = || replicas.iter().flatten().copied();
        for (engine, _) in state.alive() {
            for replica in replicas() {
                actions.extend([
                    Action::Fence { engine, replica },
                    Action::Promise { engine, replica },
                    Action::Truncate { engine, replica },
                    Action::Append { engine, replica },
                    Action::Propose { engine, replica },
                ]);
                if bounds.applies {
                    actions.push(Action::Apply { engine, replica });
                }
                if bounds.leases() {
                    actions.push(Action::Read { engine, replica });
                }
            }
            actions.extend([
                Action::Start { engine },
                Action::Write { engine },
                Action::Commit { engine },
                Action::Decide { engine },
                Action::Learn { engine },
                Action::ChooseAgain { engine },
            ]);
        }
        for replica in replicas() {
            if bounds.flushes {
                actions.push(Action::Flush { replica });
            }
            if state.crashes < bounds.crashes {
                actions.push(Action::Crash { replica });
            }
            if state.damages < bounds.damages {
                for last in 0..state.replicas[replica].log.len() {
                    for forgets in [false, true] {
                        actions.push(Action::Damage { replica, last, forgets });
                    }
                }
            }
            if bounds.damages > 0 {
                actions.push(Action::Floor { replica });
                actions.push(Action::Reset { replica, drops: false });
                actions.push(Action::Reset { replica, drops: true });
            }
            if bounds.leases() {
                for node in 0..NODES as u8 {
                    actions.push(Action::Renew { node, replica });
                    if bounds.grants_travel {
                        actions.push(Action::Granted { node, replica });
                    }
                }
            }
        }
        if bounds.leases() {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.step(state, action).map(|next| self.normal(next));
        next.filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::properties(self)
    }
}
