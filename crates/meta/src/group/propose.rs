//! Proposing and reading from any node: the leader is found, and asked again when it changes.

use super::handle::WORK;
use super::inner::Inner;
use super::message::{Answer, Place, Request};
use super::{ProposeError, RETRY};
use crate::raft::{Applied, Proposal, RequestId};
use crate::{Command, Outcome, Rejected};
use holdfast_types::{NodeId, codec};
use std::time::Duration;
use tokio::time::Instant;

/// Largest command, encoded: bounds an entry. The longest texts fit many times.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// What a remote leader's answer may take beyond its own time limit.
const TRAVEL: Duration = Duration::from_millis(500);

/// One question to the leader, asked until it is answered.
struct Asking<'a> {
    inner: &'a Inner,
    until: Instant,
    /// Where to ask next, said by one who knew better.
    hint: Option<Place>,
    /// Why there is no answer yet.
    cause: String,
    /// Whether anything may have come of it.
    unsure: bool,
}

impl<'a> Asking<'a> {
    fn new(inner: &'a Inner, within: Duration) -> Self {
        let cause = match *inner.shared.cluster.borrow() {
            Some(_) => "no leader is known; a majority of the voters is needed",
            None => "this node is part of no cluster yet",
        };
        let until = Instant::now() + within;
        Self { inner, until, hint: None, cause: cause.to_owned(), unsure: false }
    }

    /// The leader's answer to one attempt, or `None` when another one may do better.
    async fn attempt(
        &mut self,
        here: impl AsyncFnOnce(Duration) -> Answer,
        request: impl FnOnce() -> Request,
    ) -> Option<Answer> {
        let left = self.until.saturating_duration_since(Instant::now());
        let hint = self.hint.take();
        let leader = hint.or_else(|| self.inner.leader());
        let answer = match leader {
            None => None,
            Some((id, _)) if id == self.inner.me() => Some(here(left.min(WORK)).await),
            Some((id, address)) => {
                let within = left.min(WORK + TRAVEL);
                let asked = self.inner.shared.ask(Some(id), &address, request(), within);
                tokio::select! {
                    answer = asked => match answer {
                        Ok(answer) => Some(answer),
                        Err(error) => Some(Answer::Unsure(error.to_string())),
                    },
                    // One that stands still answers nothing; whoever is elected meanwhile does.
                    () = self.inner.led_by_another(id) => {
                        Some(Answer::Unsure("the leader has changed".to_owned()))
                    }
                }
            }
        };
        match answer {
            Some(Answer::NotLeader(Some(place))) if place.0 != self.inner.me() => {
                self.hint = Some(place);
            }
            Some(Answer::NotLeader(_)) | None => {}
            Some(Answer::Unsure(cause)) => {
                self.unsure = true;
                self.cause = cause;
            }
            Some(answer @ (Answer::Proposed { .. } | Answer::ReadPoint { .. })) => {
                return Some(answer);
            }
            Some(other) => {
                self.unsure = true;
                self.cause = format!("the leader answers amiss: {other:?}");
            }
        }
        // A leader that is gone stays the known one until the next is elected.
        tokio::time::sleep(RETRY.min(self.until.saturating_duration_since(Instant::now()))).await;
        None
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || *self.inner.stop.borrow()
    }

    /// What to say when the time is over.
    fn give_up(self) -> ProposeError {
        if self.unsure {
            ProposeError::Unknown
        } else {
            ProposeError::Unavailable(self.inner.failed().unwrap_or(self.cause))
        }
    }
}

impl Inner {
    /// Returns when another node than `id` is known to lead.
    async fn led_by_another(&self, id: NodeId) {
        let mut metrics = self.raft.metrics();
        let other = metrics.wait_for(|now| now.current_leader.is_some_and(|leader| leader.0 != id));
        if other.await.is_err() {
            // The group has stopped here; whoever asks has a time limit.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Result<Outcome, ProposeError> {
        if codec::encode(&command).len() > COMMAND_BYTES_MAX {
            let text = format!("a command has at most {COMMAND_BYTES_MAX} bytes");
            return Err(Rejected::Text(text).into());
        }
        let since = *self.applied.borrow();
        let mut proposal = Proposal { request: RequestId::random(), since, command };
        let mut asking = Asking::new(self, within);
        while !asking.is_over() {
            let here = async |within| self.propose_here(proposal.clone(), within).await;
            let first = !asking.unsure;
            let answer = asking.attempt(here, || Request::Propose(proposal.clone())).await;
            let Some(answer) = answer else { continue };
            match answer {
                Answer::Proposed { index, applied: Applied::Done(result) } => {
                    // The caller reads its own write; if this node is cut off meanwhile, the
                    // answer is known all the same.
                    self.wait_applied(index, asking.until).await;
                    return Ok(result?);
                }
                // This node was far behind: `since` was too low. Only one copy was ever sent, and
                // it was not carried out.
                Answer::Proposed { index, applied: Applied::Expired } if first => {
                    proposal.since = index;
                    proposal.request = RequestId::random();
                }
                // Of an earlier copy; or an answer that makes no sense.
                _ => return Err(ProposeError::Unknown),
            }
        }
        Err(asking.give_up())
    }

    pub(crate) async fn read_barrier(&self, within: Duration) -> Result<(), ProposeError> {
        let mut asking = Asking::new(self, within);
        while !asking.is_over() {
            let here = async |within| self.read_point_here(within).await;
            let answer = asking.attempt(here, || Request::ReadPoint).await;
            // Nothing comes of asking.
            asking.unsure = false;
            match answer {
                Some(Answer::ReadPoint { index }) => {
                    if self.wait_applied(index, asking.until).await {
                        return Ok(());
                    }
                    asking.cause = "this node lags behind the leader".to_owned();
                }
                Some(_) => return Err(ProposeError::Unknown),
                None => {}
            }
        }
        Err(asking.give_up())
    }
}
