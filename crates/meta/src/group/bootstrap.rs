//! How a cluster begins: the seeds agree, once, on its id and on its first voters.
//!
//! Single-decree Paxos (Lamport, "Paxos Made Simple", §2) among the nodes that the seeds' list
//! names. A proposer collects promises from a majority of the list, proposes what the highest
//! ballot among them accepted, or else a new cluster of those that promised; what a majority
//! accepts is chosen for ever. This module is the two roles without their input and output.

use crate::store::Incarnation;
use holdfast_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Orders proposals; no two nodes use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ballot {
    /// Counts a proposer's attempts.
    pub(crate) round: u64,
    /// The proposer.
    pub(crate) node: NodeId,
}

/// What is agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founding {
    /// The cluster's id.
    pub(crate) cluster: ClusterId,
    /// Its first voters.
    pub(crate) voters: BTreeMap<NodeId, Founder>,
}

/// One of a cluster's first voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founder {
    /// Where it is reached.
    pub(crate) address: String,
    /// The store that made the promise: only with it does the node take its vote up, so that one
    /// that lost its store does not vote a second time.
    pub(crate) incarnation: Incarnation,
}

/// What a node has promised and accepted. Durable before it is answered (I8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Founding)>,
}

impl Acceptor {
    /// Promises to accept nothing below `ballot`; says what was accepted before.
    ///
    /// # Errors
    /// The higher ballot that was promised.
    pub(crate) fn prepare(&mut self, ballot: Ballot) -> Result<Option<(Ballot, Founding)>, Ballot> {
        self.reach(ballot)?;
        Ok(self.accepted.clone())
    }

    /// Accepts `founding`.
    ///
    /// # Errors
    /// The higher ballot that was promised.
    pub(crate) fn accept(&mut self, ballot: Ballot, founding: Founding) -> Result<(), Ballot> {
        self.reach(ballot)?;
        self.accepted = Some((ballot, founding));
        Ok(())
    }

    /// A ballot of `node` above all that it used and that this acceptor knows.
    pub(crate) fn next(&self, node: NodeId) -> Ballot {
        Ballot { round: self.promised.map_or(0, |ballot| ballot.round) + 1, node }
    }

    fn reach(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        match self.promised {
            Some(higher) if higher > ballot => Err(higher),
            _ => {
                self.promised = Some(ballot);
                Ok(())
            }
        }
    }
}

/// The promises of one ballot.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    founders: BTreeMap<NodeId, Founder>,
    accepted: Option<(Ballot, Founding)>,
}

impl Promises {
    /// Counts a node's promise, once.
    pub(crate) fn add(
        &mut self,
        node: NodeId,
        founder: Founder,
        accepted: Option<(Ballot, Founding)>,
    ) {
        self.founders.insert(node, founder);
        let rank = |accepted: &Option<(Ballot, Founding)>| accepted.as_ref().map(|(b, _)| *b);
        if rank(&accepted) > rank(&self.accepted) {
            self.accepted = accepted;
        }
    }

    /// How many nodes promised.
    pub(crate) fn count(&self) -> usize {
        self.founders.len()
    }

    /// What a proposer with a majority of promises must propose: what may have been chosen
    /// already, else a cluster of those that promised, `voters` of them at most.
    pub(crate) fn proposal(self, fresh: ClusterId, voters: usize) -> Founding {
        match self.accepted {
            Some((_, founding)) => founding,
            None => {
                let voters = self.founders.into_iter().take(voters).collect();
                Founding { cluster: fresh, voters }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId::from_u128(n)
    }

    fn cluster(n: u128) -> ClusterId {
        ClusterId::from_u128(n)
    }

    fn founder(address: &str) -> Founder {
        Founder { address: address.to_owned(), incarnation: Incarnation(1) }
    }

    /// One proposer's way through both phases, with the acceptors it reaches in each.
    fn run(
        all: &mut [Acceptor],
        me: usize,
        fresh: u128,
        reach: (&[usize], &[usize]),
    ) -> Option<Founding> {
        let majority = all.len() / 2 + 1;
        let ballot = all[me].next(node(me as u128));
        let mut promises = Promises::default();
        for &i in reach.0 {
            if let Ok(accepted) = all[i].prepare(ballot) {
                promises.add(node(i as u128), founder(&format!("h{i}")), accepted);
            }
        }
        if promises.count() < majority {
            return None;
        }
        let founding = promises.proposal(cluster(fresh), 5);
        let accept = |i: &&usize| all[**i].accept(ballot, founding.clone()).is_ok();
        let accepted = reach.1.iter().filter(accept).count();
        (accepted >= majority).then_some(founding)
    }

    #[test]
    fn what_a_majority_accepted_is_what_everyone_proposes() {
        let mut all = vec![Acceptor::default(); 3];
        let first = run(&mut all, 0, 1, (&[0, 1], &[0, 1])).unwrap();
        assert_eq!(first.cluster, cluster(1));
        assert_eq!(first.voters.keys().copied().collect::<Vec<_>>(), [node(0), node(1)]);
        assert_eq!(run(&mut all, 2, 2, (&[1, 2], &[1, 2])).unwrap(), first);
        assert_eq!(run(&mut all, 0, 3, (&[0, 2], &[0, 2])).unwrap(), first);
    }

    #[test]
    fn a_promise_outranks_a_lower_ballot() {
        let mut all = vec![Acceptor::default(); 3];
        let low = Ballot { round: 1, node: node(0) };
        let high = Ballot { round: 1, node: node(1) };
        all[2].prepare(low).unwrap();
        all[2].prepare(high).unwrap();
        let founding = Founding { cluster: cluster(1), voters: BTreeMap::new() };
        assert_eq!(all[2].accept(low, founding.clone()), Err(high));
        assert_eq!(all[2].prepare(low), Err(high));
        all[2].accept(high, founding).unwrap();
    }

    /// Every order of two proposers' steps and losses, by brute force over who reaches whom.
    #[test]
    fn no_two_clusters_are_ever_chosen() {
        let sets: [&[usize]; 4] = [&[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]];
        let mut chosen = 0;
        for a in sets {
            for b in sets {
                for c in sets {
                    for d in [&[][..], &[0], &[1], &[2]].into_iter().chain(sets) {
                        let mut all = vec![Acceptor::default(); 3];
                        let first = run(&mut all, 0, 1, (a, d));
                        let second = run(&mut all, 1, 2, (b, c));
                        let third = run(&mut all, 2, 3, (c, b));
                        let mut results: Vec<_> =
                            [first, second, third].into_iter().flatten().collect();
                        chosen += results.len();
                        results.dedup();
                        assert!(results.len() <= 1, "{a:?} {d:?} {b:?} {c:?}: {results:?}");
                    }
                }
            }
        }
        assert!(chosen > 500, "{chosen}");
    }

    #[test]
    fn a_node_counts_once_however_many_addresses_it_has() {
        let mut promises = Promises::default();
        promises.add(node(1), founder("localhost:1"), None);
        promises.add(node(1), founder("127.0.0.1:1"), None);
        assert_eq!(promises.count(), 1);
    }
}
