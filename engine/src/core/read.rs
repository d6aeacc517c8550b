//! Reads: at the commit LSN of the moment, from the nearest member that holds
//! all that is committed; from the next one when that fails.

use super::ops::{Fetch, Kind, OpId, Part, Write};
use super::{Command, EngineCore, Link, MemberId, OpTag, StopReason};
use holdfast_block::{BlockError, Extent, Reply, Segments};
use holdfast_replica::{Extents, ReadError, ReadSegments};
use holdfast_types::BLOCK_BYTES;
use holdfast_types::mutant::{Mutant, active};
use holdfast_wire::Refusal;

/// What one status request covers at most: bounds the time that a shard spends on
/// it. The reply says how far it got, which is less where a member has very many
/// extents to name.
pub const STATUS_BYTES_MAX: u64 = 128 << 20;

impl EngineCore {
    /// Sends a request's read to the next member to try.
    pub(super) fn fetch(&mut self, id: OpId, part: Part) {
        let (at, epoch) = (self.commit, self.epoch);
        // The reads of a sub-block write need no lease: if another engine took over,
        // the write is not committed.
        let waits = part == Part::Whole && !self.is_leased();
        let voters = self.quorums.voters();
        let Some(op) = self.ops.get_mut(id) else { return };
        if waits {
            self.stalled.push_back((id, part));
            return;
        }
        let is_status = matches!(op.kind, Kind::Status { .. });
        let Some(fetch) = fetch_of(&mut op.kind, part) else { return };
        let complete = |member: &&super::member::Member| {
            let lags = member.is(Link::Behind) && active(Mutant::LaggingRead);
            (member.is_complete(at) || lags) && !fetch.tried.contains(member.id)
        };
        let Some(member) = self.members.iter().find(complete).map(|member| member.id) else {
            let tried = fetch.tried;
            // One that is away may return; a client that cannot wait has a deadline.
            let hope = |member: &super::member::Member| {
                let waits = member.is(Link::Streaming) || voters.contains(member.id);
                waits && !member.is(Link::Lost) && !tried.contains(member.id)
            };
            if self.members.iter().any(hope) {
                self.stalled.push_back((id, part));
            } else {
                self.fail(id, BlockError::Io);
            }
            return;
        };
        fetch.on = Some(member);
        let (tag, range) = (id.tag(part), fetch.blocks());
        self.out.push(if is_status {
            Command::Status { member, tag, epoch, at, range }
        } else {
            Command::Read { member, tag, epoch, at, range }
        });
    }

    /// Tries again what found no complete member.
    pub(super) fn retry_stalled(&mut self) {
        for _ in 0..self.stalled.len() {
            let Some((id, part)) = self.stalled.pop_front() else { return };
            self.fetch(id, part);
        }
    }

    pub(super) fn read_done(
        &mut self,
        member: MemberId,
        tag: OpTag,
        result: Result<ReadSegments, ReadError>,
    ) {
        let (id, part) = (tag.id(), tag.part());
        let Some(fetch) = self.answered(member, id, part) else { return };
        let (offset, len, range) = (fetch.offset, fetch.len, fetch.blocks());
        match result {
            Ok(segments) if bytes(&segments) == range.bytes() => match part {
                Part::Whole => {
                    let lead = (offset - range.start.offset()) as usize;
                    let data = trim(segments, lead, len as usize);
                    self.finish(id, Ok(Reply::Data(data)));
                }
                Part::Head | Part::Tail => {
                    match segments.iter().find(|segment| segment.len() == BLOCK_BYTES) {
                        Some(block) => self.fill_edge(id, part, block),
                        None => self.try_another(member, id, part, None),
                    }
                }
            },
            Ok(_) => self.try_another(member, id, part, None),
            Err(error) => self.try_another(member, id, part, Some(&error)),
        }
    }

    pub(super) fn status_done(
        &mut self,
        member: MemberId,
        tag: OpTag,
        result: Result<Extents, ReadError>,
    ) {
        let id = tag.id();
        let Some(fetch) = self.answered(member, id, Part::Whole) else { return };
        let (offset, len) = (fetch.offset, fetch.len);
        let skip = offset - fetch.blocks().start.offset();
        let Some(Kind::Status { one, .. }) = self.ops.get(id).map(|op| &op.kind) else { return };
        let one = *one;
        match result {
            Ok(extents) => {
                let extents = clip(&extents, skip, len, one);
                if extents.is_empty() {
                    self.try_another(member, id, Part::Whole, None);
                } else {
                    self.finish(id, Ok(Reply::Status(extents)));
                }
            }
            Err(error) => self.try_another(member, id, Part::Whole, Some(&error)),
        }
    }

    /// The read that `member` was asked for, if it is still the one asked.
    fn answered(&mut self, member: MemberId, id: OpId, part: Part) -> Option<&Fetch> {
        let fetch = fetch_of(&mut self.ops.get_mut(id)?.kind, part)?;
        if fetch.on != Some(member) {
            return None;
        }
        fetch.on = None;
        Some(fetch)
    }

    fn try_another(&mut self, member: MemberId, id: OpId, part: Part, error: Option<&ReadError>) {
        if let Some(ReadError::Refused(Refusal::Fenced { promised })) = error
            && *promised > self.epoch
        {
            self.stop(StopReason::Fenced { promised: *promised });
            return;
        }
        let Some(fetch) = self.ops.get_mut(id).and_then(|op| fetch_of(&mut op.kind, part)) else {
            return;
        };
        fetch.tried.insert(member);
        if matches!(error, Some(ReadError::Corrupt { .. } | ReadError::Disk(_))) {
            self.counters.failed_reads += 1;
        }
        self.fetch(id, part);
    }

    /// A member went away: what it was asked for goes to another.
    pub(super) fn fetches_left_by(&mut self, member: MemberId) {
        let mut left = Vec::new();
        for (id, op) in self.ops.iter() {
            for part in [Part::Whole, Part::Head, Part::Tail] {
                if peek(&op.kind, part).is_some_and(|fetch| fetch.on == Some(member)) {
                    left.push((id, part));
                }
            }
        }
        for (id, part) in left {
            let Some(op) = self.ops.get_mut(id) else { continue };
            if let Some(fetch) = fetch_of(&mut op.kind, part) {
                fetch.on = None;
            }
            self.fetch(id, part);
        }
    }

    /// A request's read failed everywhere.
    fn fail(&mut self, id: OpId, error: BlockError) {
        self.finish(id, Err(error));
    }
}

fn peek(kind: &Kind, part: Part) -> Option<&Fetch> {
    match (kind, part) {
        (Kind::Read(fetch) | Kind::Status { fetch, .. }, Part::Whole) => Some(fetch),
        (Kind::Write(Write { head, .. }), Part::Head) => head.as_ref(),
        (Kind::Write(Write { tail, .. }), Part::Tail) => tail.as_ref(),
        _ => None,
    }
}

fn fetch_of(kind: &mut Kind, part: Part) -> Option<&mut Fetch> {
    match (kind, part) {
        (Kind::Read(fetch) | Kind::Status { fetch, .. }, Part::Whole) => Some(fetch),
        (Kind::Write(Write { head, .. }), Part::Head) => head.as_mut(),
        (Kind::Write(Write { tail, .. }), Part::Tail) => tail.as_mut(),
        _ => None,
    }
}

fn bytes(segments: &ReadSegments) -> u64 {
    segments.iter().map(|segment| segment.len() as u64).sum()
}

/// The `len` bytes from `skip` on of what the segments hold.
fn trim(mut segments: ReadSegments, mut skip: usize, mut len: usize) -> Segments {
    segments.retain(|segment| {
        let start = skip.min(segment.len());
        let take = len.min(segment.len() - start);
        skip -= start;
        len -= take;
        if take < segment.len() && take > 0 {
            *segment = segment.slice(start..start + take);
        }
        take > 0
    });
    segments
}

/// Extents of the `len` bytes that begin `skip` bytes into `blocks`, neighbours
/// of the same state merged; only the first when `one`.
fn clip(blocks: &Extents, mut skip: u64, mut len: u64, one: bool) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::new();
    for (count, allocated) in blocks.iter().copied() {
        let run = count.saturating_mul(BLOCK_BYTES as u64);
        let start = skip.min(run);
        let take = len.min(run - start);
        skip -= start;
        len -= take;
        if take == 0 {
            continue;
        }
        match out.last_mut() {
            Some(last) if last.allocated == allocated => last.len += take,
            Some(_) if one => break,
            _ => out.push(Extent { len: take, allocated }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_io::BufPool;

    #[test]
    fn segments_are_trimmed_to_the_bytes_asked_for() {
        let pool = BufPool::new(0);
        let mut segments = ReadSegments::new();
        for fill in 1..=3 {
            let mut buf = pool.alloc(BLOCK_BYTES);
            buf.fill(fill);
            segments.push(buf.freeze());
        }
        let data = trim(segments.clone(), 512, 4096);
        assert_eq!(data.iter().map(|s| (s[0], s.len())).collect::<Vec<_>>(), [(1, 3584), (2, 512)]);
        let data = trim(segments.clone(), 0, 3 * 4096);
        assert_eq!(data.iter().map(|s| s.len()).sum::<usize>(), 3 * 4096);
        let data = trim(segments, 4096 + 1024, 512);
        assert_eq!(data.iter().map(|s| (s[0], s.len())).collect::<Vec<_>>(), [(2, 512)]);
    }

    #[test]
    fn extents_are_clipped_and_merged() {
        let blocks = vec![(1, true), (1, true), (2, false), (4, true)];
        let e = |len, allocated| Extent { len, allocated };
        assert_eq!(
            clip(&blocks, 512, 4 * 4096, false),
            [e(7680, true), e(8192, false), e(512, true)]
        );
        assert_eq!(clip(&blocks, 512, 4 * 4096, true), [e(7680, true)]);
        assert_eq!(clip(&blocks, 0, 100, true), [e(100, true)]);
        assert_eq!(clip(&blocks, 0, 0, false), []);
    }
}
