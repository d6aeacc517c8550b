//! Becoming part of a cluster: form it with the other seeds, or find it and join.

use super::bootstrap::{Founder, Founding, Promises};
use super::inner::Inner;
use super::message::{Answer, Discovery, Request};
use super::{MetaError, RETRY};
use crate::raft::RaftId;
use crate::store::key;
use holdfast_types::ClusterId;
use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long one seed may take to answer.
const ASK: Duration = Duration::from_secs(2);
/// How long the first proposer waits for seeds beyond a majority, so that nodes that are started
/// together found the cluster together.
const GATHER: Duration = Duration::from_secs(2);
/// How long another node's proposal is left alone; between once and twice that, so that two
/// proposers do not stay in step.
const COURTESY: Duration = Duration::from_millis(700);
/// Between two attempts, and between two looks for a cluster.
const PAUSE_MS: u64 = 150;
/// How often a node that is not listed (at its address) asks to be.
const ATTEND_MS: u64 = 500;
/// A cause is logged again after so many attempts.
const LOG_EVERY: u32 = 50;

impl Inner {
    pub(crate) async fn form_or_join(&self, seeds: Vec<String>) -> Result<(), MetaError> {
        let seeds: BTreeSet<String> = match seeds.is_empty() {
            true => BTreeSet::from([self.shared.config.advertise.clone()]),
            false => seeds.into_iter().collect(),
        };
        let seeds: Vec<String> = seeds.into_iter().collect();
        self.add_contacts(seeds.iter().cloned());
        self.bootstrap.lock().await.seeds = Some(seeds.clone());
        let founding = self.bootstrap.lock().await.founding.clone();
        match founding {
            // Chosen, but perhaps not carried out before the process ended.
            Some(founding) => self.adopt(founding).await?,
            None => self.find(&seeds).await?,
        }
        // The rest is Raft's, and `attend`'s.
        let mut status = self.status.subscribe();
        loop {
            let cluster = *self.shared.cluster.borrow();
            let known = self.catalogue.borrow().cluster();
            if cluster.is_some() && known == cluster && self.is_listed() {
                return Ok(());
            }
            if let Some(cause) = self.failed() {
                return Err(MetaError::Stopped(cause));
            }
            let _ = tokio::time::timeout(RETRY, status.changed()).await;
            if *self.stop.borrow() {
                return Err(MetaError::Stopped("it was shut down".to_owned()));
            }
        }
    }

    /// Returns when this node has a cluster.
    async fn find(&self, seeds: &[String]) -> Result<(), MetaError> {
        let started = Instant::now();
        let mut attempts = 0_u32;
        while self.shared.cluster.borrow().is_none() {
            let (found, silent) = self.discover(seeds).await;
            let is_seed = seeds.contains(&self.shared.config.advertise)
                || found.iter().any(|found| found.node == self.me());
            for found in found {
                self.take_up(found).await?;
            }
            if self.shared.cluster.borrow().is_some() {
                break;
            }
            let all = started.elapsed() < GATHER;
            let cause = if !is_seed {
                let none = silent.is_empty().then(|| "the seeds have none either".to_owned());
                Some(none.unwrap_or_else(|| silent.join("; ")))
            } else if self.is_free_to_propose().await {
                self.try_to_found(seeds, all).await?.err()
            } else {
                None
            };
            // Nodes that are started together find each other before that is news.
            if let Some(cause) = cause.filter(|_| !all) {
                if attempts.is_multiple_of(LOG_EVERY) {
                    tracing::info!(cause, ?seeds, "no cluster yet; trying on");
                }
                attempts += 1;
            }
            if self.pause(PAUSE_MS).await {
                return Err(MetaError::Stopped("it was shut down".to_owned()));
            }
        }
        Ok(())
    }

    /// Whether no other node's proposal was heard lately.
    async fn is_free_to_propose(&self) -> bool {
        let heard = self.bootstrap.lock().await.heard;
        let spread = uuid::Uuid::new_v4().as_u128() % COURTESY.as_millis();
        let courtesy = COURTESY + Duration::from_millis(spread as u64);
        heard.is_none_or(|heard| heard.elapsed() > courtesy)
    }

    /// What the seeds that answer know, and why others do not.
    async fn discover(&self, seeds: &[String]) -> (Vec<Discovery>, Vec<String>) {
        let (answers, silent) = self.ask_all(seeds, |_| Request::Discover).await;
        let discovery = |answer| match answer {
            Answer::Discovered(found) => Some(found),
            _ => None,
        };
        (answers.into_iter().filter_map(discovery).collect(), silent)
    }

    /// Asks every seed but this node itself; says why those that do not answer do not.
    async fn ask_all(
        &self,
        seeds: &[String],
        request: impl Fn(usize) -> Request,
    ) -> (Vec<Answer>, Vec<String>) {
        let mut asked = JoinSet::new();
        let others = seeds.iter().filter(|seed| **seed != self.shared.config.advertise);
        for (i, seed) in others.enumerate() {
            let (shared, seed, request) = (self.shared.clone(), seed.clone(), request(i));
            asked.spawn(async move { shared.ask(None, &seed, request, ASK).await });
        }
        let (mut answers, mut silent) = (Vec::new(), Vec::new());
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(error)) => silent.push(error.to_string()),
                Err(error) => tracing::debug!(%error, "asking a seed ended"),
            }
        }
        (answers, silent)
    }

    /// Takes part in the cluster that another node knows, if it knows one.
    async fn take_up(&self, found: Discovery) -> Result<(), MetaError> {
        let Some(cluster) = found.cluster else { return Ok(()) };
        if self.shared.cluster.borrow().is_some() {
            return Ok(());
        }
        self.add_contacts(found.members.values().cloned());
        let me = self.me();
        let lost = Err(MetaError::LostState { node: me, cluster });
        let is_member = found.members.contains_key(&me);
        match found.founding {
            Some(founding) if founding.cluster == cluster => {
                match founding.voters.get(&me) {
                    // It promised, and only was not told that this was chosen.
                    Some(founder) if founder.incarnation == self.store.incarnation() => {
                        self.adopt(founding).await
                    }
                    // It may have voted before; under its old id it could vote twice. A member
                    // that joined was bound to the cluster before it asked to.
                    Some(_) => lost,
                    None if is_member => lost,
                    None => self.adopt(founding).await,
                }
            }
            // Who can tell whether it is a founder is asked next.
            _ if is_member => Ok(()),
            _ => self.settle(cluster).await,
        }
    }

    /// One proposal to the seeds. `all`: only if every one of them answers. The inner error says
    /// why nothing was chosen.
    async fn try_to_found(
        &self,
        seeds: &[String],
        all: bool,
    ) -> Result<Result<(), String>, MetaError> {
        let me = self.me();
        let majority = seeds.len() / 2 + 1;
        let ballot = self.bootstrap.lock().await.acceptor.next(me);
        // Its own promise first: it is durable before any other node sees the ballot, so that no
        // ballot is ever used for two proposals.
        let own = self.vote_on_founding(me, seeds, |acceptor| self.promise(acceptor, ballot)).await;
        let prepare = |_| Request::Prepare { seeds: seeds.to_vec(), ballot };
        let (mut answers, silent) = self.ask_all(seeds, prepare).await;
        answers.push(own);
        let mut promises = Promises::default();
        for answer in answers {
            match answer {
                Answer::Promised { node, founder, accepted } => {
                    promises.add(node, founder, accepted);
                }
                Answer::Discovered(found) => self.take_up(found).await?,
                _ => {}
            }
        }
        if self.shared.cluster.borrow().is_some() {
            return Ok(Ok(()));
        }
        let count = promises.count();
        let wanted = if all { seeds.len() } else { majority };
        if count < wanted {
            let silent = silent.join("; ");
            return Ok(Err(format!(
                "{count} of {} seeds agree, {majority} are needed: {silent}",
                seeds.len()
            )));
        }
        let voters = usize::from(self.shared.config.voters);
        let founding = promises.proposal(ClusterId::random(), voters);
        let own = self
            .vote_on_founding(me, seeds, |acceptor| {
                acceptor.accept(ballot, founding.clone())?;
                Ok(Answer::Accepted { node: me })
            })
            .await;
        let accept = |_| {
            let founding = founding.clone();
            Request::Accept { seeds: seeds.to_vec(), ballot, founding }
        };
        let (mut answers, _) = self.ask_all(seeds, accept).await;
        answers.push(own);
        let accepted: BTreeSet<_> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Accepted { node } => Some(node),
                _ => None,
            })
            .collect();
        if accepted.len() < majority {
            return Ok(Err(format!("{} of {} seeds accept", accepted.len(), seeds.len())));
        }
        self.adopt(founding).await?;
        Ok(Ok(()))
    }

    /// Carries out what was chosen, or just notes it where this node was not.
    async fn adopt(&self, founding: Founding) -> Result<(), MetaError> {
        let stored = founding.clone();
        self.store.run(move |store| store.put(key::FOUNDING, &stored)).await?;
        self.bootstrap.lock().await.founding = Some(founding.clone());
        self.add_contacts(founding.voters.values().map(|founder| founder.address.clone()));
        self.settle(founding.cluster).await?;
        if !founding.voters.contains_key(&self.me()) {
            return Ok(());
        }
        let place = |(id, founder): (_, Founder)| (RaftId(id), BasicNode { addr: founder.address });
        let voters: BTreeMap<_, _> = founding.voters.into_iter().map(place).collect();
        match self.raft.initialize(voters).await {
            Ok(()) => {
                tracing::info!(cluster = %founding.cluster, node = %self.me(), "forms a cluster");
                Ok(())
            }
            // It was, before; or the leader came first.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(MetaError::Stopped(error.to_string())),
        }
    }

    /// Binds this node to a cluster, for ever.
    async fn settle(&self, cluster: ClusterId) -> Result<(), MetaError> {
        // Held: no ballot is answered between the two.
        let bootstrap = self.bootstrap.lock().await;
        self.store.run(move |store| store.put(key::CLUSTER, &cluster)).await?;
        self.shared.cluster.send_replace(Some(cluster));
        drop(bootstrap);
        Ok(())
    }

    /// Sees to it that the group lists this node, at the address that it has now.
    pub(crate) async fn attend(self: std::sync::Arc<Self>) {
        loop {
            let member = self.shared.cluster.borrow().is_some();
            if member && !self.is_listed() && self.failed().is_none() {
                self.ask_to_join().await;
            }
            if self.pause(ATTEND_MS).await {
                return;
            }
        }
    }

    async fn ask_to_join(&self) {
        let address = self.shared.config.advertise.clone();
        if self.leads() {
            let answer = self.let_join(self.me(), address).await;
            tracing::debug!(?answer, "this node's address has changed");
            return;
        }
        let mut to: Vec<(Option<_>, String)> = Vec::new();
        to.extend(self.leader().map(|(id, address)| (Some(id), address)));
        {
            let contacts = self.contacts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            to.extend(contacts.iter().map(|contact| (None, contact.clone())));
        }
        to.extend(self.members().into_iter().map(|(id, address)| (Some(id), address)));
        to.retain(|(id, at)| *at != address && *id != Some(self.me()));
        // Who is not the leader says who is.
        let mut redirected = false;
        to.reverse();
        while let Some((id, at)) = to.pop() {
            let request = Request::Join { address: address.clone() };
            match self.shared.ask(id, &at, request, ASK).await {
                Ok(Answer::Joined) => return,
                Ok(Answer::NotLeader(Some((id, at)))) if !redirected && id != self.me() => {
                    redirected = true;
                    to.push((Some(id), at));
                }
                Ok(other) => tracing::debug!(?other, at, "not let in yet"),
                Err(error) => tracing::debug!(%error, "not let in yet"),
            }
        }
    }
}
