//! Asks for another replica set until the answer is known.

use super::{SetAnswer, SetProposal, backoff::Backoff, driver::Inner, volume::Volume};
use crate::core::{Event, MemberId, MemberSet};
use holdfast_types::{Generation, ReplicaId};
use std::rc::Rc;
use tokio::sync::oneshot;

/// Asks on behalf of a volume's engine, and tells it the answer.
pub(super) async fn ask(
    inner: Rc<Inner>,
    volume: Rc<Volume>,
    generation: Generation,
    wanted: MemberSet,
) {
    let mut backoff = Backoff::default();
    let members: Vec<ReplicaId> =
        wanted.iter().filter_map(|member| volume.member(member)).map(|spec| spec.replica).collect();
    tracing::info!(volume = %volume.id(), %generation, ?members, "proposing another replica set");
    while volume.stop_reason().is_none() {
        let (answer, answered) = oneshot::channel();
        let proposal = SetProposal {
            volume: volume.id(),
            epoch: volume.epoch(),
            generation,
            members: members.clone(),
            answer,
        };
        let asked = async {
            inner.proposals.send(proposal).await.ok()?;
            answered.await.ok()
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = volume.stopped() => return,
        };
        match answer {
            Some(SetAnswer::Fenced { epoch }) => return volume.fence_off(epoch),
            Some(SetAnswer::InForce { generation, members }) => {
                let known = members.iter().map(|replica| volume.member_of(*replica));
                // A set with a copy that this engine does not know is none of its own.
                let members: Option<MemberSet> = known
                    .collect::<Option<Vec<MemberId>>>()
                    .map(|members| members.into_iter().collect());
                let members = members.unwrap_or_else(|| std::iter::empty().collect());
                let accepted = members == wanted;
                tracing::info!(volume = %volume.id(), %generation, accepted, "replica set decided");
                return volume.tell(Event::SetDecided { generation, members, accepted });
            }
            None => backoff.wait().await,
        }
    }
}
