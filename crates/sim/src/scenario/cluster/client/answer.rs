//! What clients are answered: data, success or an error, and which of them may be.

use super::{
    super::{World, packet::Ask, talk::Said},
    Under, Way, blocks_of,
};
use crate::{
    history::Step,
    invariants::{
        Invariant::I9NoSilentCorruption, Violation, ensure, i6_reads_are_linearizable, liveness,
    },
    model::WriteId,
};
use holdfast_frontend::nbd::proto::Errno;
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange};

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
        let volume = client.volume;
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
        match (under.ask, result) {
            (Ask::Write(range, id), Ok(_)) => {
                self.counts.operations += 1;
                self.counts.writes_acked += 1;
                self.volumes[volume].acked += 1;
                for block in blocks_of(range) {
                    self.volumes[volume].clients.write_ended(block, id, ended);
                }
            }
            (Ask::Discard(range, id) | Ask::Zeroes(range, id, _), Ok(_)) => {
                self.counts.operations += 1;
                for block in blocks_of(range) {
                    self.volumes[volume].clients.write_ended(block, id, ended);
                }
            }
            (Ask::Read(range), Ok(Said::Data(data))) => {
                self.counts.operations += 1;
                self.counts.reads += 1;
                let step = Step { client: index as u64, begun: under.begun, ended: Some(ended) };
                for (block, bytes) in blocks_of(range).zip(data.chunks(BLOCK_BYTES)) {
                    let id = read_as(block, bytes)?;
                    self.counts.blocks_verified += 1;
                    self.volumes[volume].clients.read(block, id, step);
                }
            }
            (Ask::Status(range), Ok(Said::Runs(runs))) => {
                self.counts.operations += 1;
                let step = Step { client: index as u64, begun: under.begun, ended: Some(ended) };
                let mut at = range.start.offset();
                for (len, hole) in runs {
                    let run = BlockRange::covering(at, len);
                    at += len;
                    // What is said to be a hole reads as zeroes.
                    for block in blocks_of(run).filter(|_| hole) {
                        self.counts.blocks_verified += 1;
                        self.volumes[volume].clients.read(block, WriteId::ZEROES, step);
                    }
                }
            }
            (_, Ok(_)) => self.counts.operations += 1,
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
            return !under.calm && nodes().any(|machine| machine.disk.counts().no_space > 0);
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
fn read_as(block: BlockNo, bytes: &[u8]) -> Result<WriteId, Violation> {
    let (id, named) = match bytes.iter().all(|byte| *byte == 0) {
        true => (WriteId::ZEROES, block),
        false => WriteId::named_in(bytes),
    };
    let whole = named == block && id.matches(block, bytes);
    ensure(I9NoSilentCorruption, whole, || {
        format!("block {block} reads as write {} of block {named}, or garbage", id.0)
    })?;
    Ok(id)
}
