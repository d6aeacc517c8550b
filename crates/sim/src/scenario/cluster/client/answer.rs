//! What clients are answered: data, success or an error, and which of them may be.

use super::{
    super::{
        World,
        packet::{Ask, Span},
        shape::MS,
        talk::Said,
    },
    Under, Way,
};
use crate::{
    history::{Place, Step},
    invariants::{
        Invariant::I9NoSilentCorruption, Violation, ensure, i6_reads_are_linearizable, liveness,
    },
    model::WriteId,
};
use holdfast_frontend::nbd::proto::Errno;

/// Nodes know within this time that there is room again: a full disk looks for it every
/// five seconds, and then its engines have to be told.
const ROOM_NOTICED_NS: u64 = 7000 * MS;

impl World {
    pub(super) fn client_answered(
        &mut self,
        index: usize,
        tag: u64,
        result: Result<Said, u32>,
    ) -> Result<(), Violation> {
        let Some(under) = self.clients[index].under.remove(&tag) else { return Ok(()) };
        let ended = self.next_moment();
        let client = &mut self.clients[index];
        let (volume, unit) = (client.volume, client.unit);
        if under.calm && result.is_ok() {
            client.has_read |= matches!(under.ask, Ask::Read(_));
            client.has_changed |= matches!(under.ask, Ask::Write(..));
        }
        if let Some((_, late)) = client.decides.take_if(|(by, _)| *by == tag)
            && result.is_ok()
            && let Some(id) = under.write()
        {
            client.lost.retain(|(_, ids)| !ids.iter().any(|id| late.contains(id)));
            let history = &mut self.volumes[volume].clients;
            let decided = history.decide_behind(ended, id, |id| late.contains(&id));
            self.counts.late_writes_decided += decided;
        }
        let step = Step { client: index as u64, begun: under.begun, ended: Some(ended) };
        match (under.ask, result) {
            (Ask::Read(span), Ok(Said::Data(data))) => {
                self.counts.operations += 1;
                self.counts.reads += 1;
                for (place, bytes) in span.places(unit).zip(data.chunks(unit as usize)) {
                    let id = read_as(place, bytes)?;
                    self.counts.blocks_verified += 1;
                    self.volumes[volume].clients.read(place, id, step);
                }
            }
            (Ask::Status(span), Ok(Said::Runs(runs))) => {
                self.counts.operations += 1;
                let mut offset = span.offset;
                for (len, hole) in runs {
                    let run = Span { offset, len };
                    offset += len;
                    // What is said to be a hole reads as zeroes.
                    for place in run.places(unit).filter(|_| hole) {
                        self.counts.blocks_verified += 1;
                        self.volumes[volume].clients.read(place, WriteId::ZEROES, step);
                    }
                }
            }
            (ask, Ok(_)) => {
                self.counts.operations += 1;
                let acked = u64::from(matches!(ask, Ask::Write(..)));
                self.counts.writes_acked += acked;
                self.volumes[volume].acked += acked;
                if let Some((id, span, _)) = ask.change() {
                    for place in span.places(unit) {
                        self.volumes[volume].clients.write_ended(place, id, ended);
                    }
                }
            }
            (ask, Err(error)) => {
                self.counts.errors += 1;
                self.trace.note(&[72, index as u64, tag], || {
                    format!("client {index}: {ask:?} fails with error {error}")
                });
                if !self.may_fail(volume, &under, error) {
                    let what = format!("client {index}: {ask:?} fails with error {error}");
                    return Err(liveness::refused(&what, under.calm));
                }
            }
        }
        Ok(())
    }

    /// Whether something has happened that a request may fail of with this error.
    fn may_fail(&self, volume: usize, under: &Under, error: u32) -> bool {
        let nodes = || self.volumes[volume].replicas.keys().map(|node| &self.machines[*node]);
        // What a node stores was damaged, and where the others lack it, nobody has it.
        let hurt = nodes().any(|machine| machine.is_hurt());
        if error == Errno::NoSpc as u32 {
            // The disks are full; not any more since others have given the space back.
            let noticed_ns = self.shape.storm_ns + ROOM_NOTICED_NS;
            let may_be = !under.calm || under.since_ns < noticed_ns;
            return may_be && nodes().any(|machine| machine.disk.counts().no_space > 0);
        }
        error == Errno::Io as u32 && hurt
    }

    /// Whether every client has read and written since nothing goes wrong any more.
    pub(in super::super) fn clients_are_served(&self) -> bool {
        let mut asking = self.clients.iter().filter(|client| !self.is_beyond_help(client.volume));
        asking.all(|client| {
            matches!(client.way, Way::Open(_)) && client.has_read && client.has_changed
        })
    }

    /// Holds what every client has seen against an order of it.
    pub(in super::super) fn check_clients(&self) -> Result<(), Violation> {
        for volume in &self.volumes {
            i6_reads_are_linearizable::check_history(volume.id, &volume.clients)?;
        }
        Ok(())
    }
}

/// The write that stored `bytes`.
fn read_as(place: Place, bytes: &[u8]) -> Result<WriteId, Violation> {
    let block = place.block;
    let (id, named) = match bytes.iter().all(|byte| *byte == 0) {
        true => (WriteId::ZEROES, block),
        false => WriteId::named_in(bytes),
    };
    let matches = match place.sector {
        Some(sector) => id.matches_sector(block, usize::from(sector), bytes),
        None => id.matches(block, bytes),
    };
    ensure(I9NoSilentCorruption, named == block && matches, || {
        format!("{place} reads as write {} of block {named}, or garbage", id.0)
    })?;
    Ok(id)
}
