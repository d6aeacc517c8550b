//! What nodes ask each other beside the metadata group's messages: how things stand, and
//! what replicas hold. Behind one byte that says which of the two a request is.

use holdfast_api::types::{Counters, RecoveryStatus};
use holdfast_types::{
    BlockMask, DiskId, Epoch, Generation, Lsn, NodeId, ReplicaId, SLOT_BLOCKS, SlotNo, VolumeId,
    codec,
};
use serde::{Deserialize, Serialize};

/// First byte of a request: the rest is the metadata group's.
const META: u8 = 0;
/// First byte of a request: the rest is an [`Ask`].
const ASK: u8 = 1;
/// What a decoded question may take.
const ASK_BYTES_MAX: usize = 64 << 10;
/// What a decoded answer may take: a report about a few thousand volumes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A question. Replicas are named by volume and copy, so that no copy answers for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// How do things stand on your node?
    Report,
    /// Apply nothing more for a while; a second call only moves the end.
    Hold { volume: VolumeId, replica: ReplicaId, for_ms: u64 },
    /// End that.
    Release { volume: VolumeId, replica: ReplicaId },
    /// What do you hold at `at` of `count` slots from `from` on?
    Digest { volume: VolumeId, replica: ReplicaId, at: Lsn, from: SlotNo, count: u64 },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Ask::Report`].
    Report(Box<Report>),
    /// To [`Ask::Hold`]: where the replica stands.
    Held(LocalReplica),
    /// To [`Ask::Release`].
    Done,
    /// To [`Ask::Digest`]: slots with something present, in address order.
    Digest(Vec<SlotSum>),
    /// To [`Ask::Digest`]: this block does not match its checksum.
    Corrupt(u64),
    /// Why there is no answer.
    Failed(String),
}

/// A slot's blocks and their checksums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotSum {
    pub(crate) slot: SlotNo,
    /// Which blocks are present.
    pub(crate) mask: BlockMask,
    /// Checksums of those, in address order.
    pub(crate) crcs: Vec<u32>,
}

impl SlotSum {
    /// The checksum of a block, if it is present.
    pub(crate) fn crc(&self, block: usize) -> Option<u32> {
        let bits = u32::from(self.mask);
        if block >= SLOT_BLOCKS || bits & (1 << block) == 0 {
            return None;
        }
        let below = (bits & ((1 << block) - 1)).count_ones() as usize;
        self.crcs.get(below).copied()
    }
}

/// How things stand on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) disks: Vec<LocalDisk>,
    pub(crate) engines: Vec<LocalEngine>,
    pub(crate) replicas: Vec<LocalReplica>,
    /// Volumes attached here that are not served, and why.
    pub(crate) waiting: Vec<(VolumeId, String)>,
}

impl Report {
    /// The engine of a volume, if there is one.
    pub(crate) fn engine(&self, volume: VolumeId) -> Option<&LocalEngine> {
        self.engines.iter().find(|engine| engine.volume == volume)
    }
}

/// A disk of that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalDisk {
    pub(crate) disk: DiskId,
    pub(crate) path: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) backend: String,
    pub(crate) free_bytes: u64,
    pub(crate) wal_free_bytes: u64,
    pub(crate) failure: Option<String>,
    pub(crate) recovery: RecoveryStatus,
}

/// An engine on that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalEngine {
    pub(crate) volume: VolumeId,
    /// In words; `serving` when it does.
    pub(crate) state: String,
    pub(crate) serving: bool,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    pub(crate) commit: Lsn,
    pub(crate) last: Lsn,
    pub(crate) size_bytes: u64,
    pub(crate) read_only: bool,
    pub(crate) sessions: u64,
    pub(crate) in_flight: u64,
    pub(crate) counters: Counters,
    pub(crate) members: Vec<LocalMember>,
}

/// A copy as its engine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalMember {
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
    /// In words.
    pub(crate) state: String,
    pub(crate) matched: Lsn,
}

/// A replica on that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalReplica {
    pub(crate) volume: VolumeId,
    pub(crate) replica: ReplicaId,
    pub(crate) disk: DiskId,
    pub(crate) blocks: u64,
    pub(crate) last: Lsn,
    pub(crate) commit: Lsn,
    pub(crate) applied: Lsn,
    pub(crate) fetched: Lsn,
    pub(crate) suspect: bool,
}

/// A request taken apart.
pub(super) enum Request {
    Meta(Vec<u8>),
    Ask(Ask),
    Malformed(String),
}

pub(super) fn wrap_meta(mut request: Vec<u8>) -> Vec<u8> {
    request.insert(0, META);
    request
}

pub(super) fn encode_ask(question: &Ask) -> Vec<u8> {
    let mut request = codec::encode(question);
    request.insert(0, ASK);
    request
}

pub(super) fn unwrap(mut request: Vec<u8>) -> Request {
    match request.first() {
        Some(&META) => {
            request.remove(0);
            Request::Meta(request)
        }
        Some(&ASK) => match codec::decode::<_, ASK_BYTES_MAX>(&request[1..]) {
            Ok(question) => Request::Ask(question),
            Err(error) => Request::Malformed(error.to_string()),
        },
        first => Request::Malformed(format!("a request that begins with {first:?}")),
    }
}

pub(super) fn encode_answer(answer: &Answer) -> Vec<u8> {
    codec::encode(answer)
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, String> {
    match codec::decode::<_, ANSWER_BYTES_MAX>(bytes) {
        Ok(Answer::Failed(reason)) => Err(reason),
        Ok(answer) => Ok(answer),
        Err(error) => Err(format!("the answer cannot be understood: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_both_kinds_are_told_apart() {
        let meta = unwrap(wrap_meta(vec![1, 2, 3]));
        assert!(matches!(meta, Request::Meta(bytes) if bytes == [1, 2, 3]));
        let ask = unwrap(encode_ask(&Ask::Report));
        assert!(matches!(ask, Request::Ask(Ask::Report)));
        for bad in [vec![], vec![9], vec![ASK], vec![ASK, 77], vec![ASK, 0, 0]] {
            assert!(matches!(unwrap(bad.clone()), Request::Malformed(_)), "{bad:?}");
        }
        let answer = Answer::Corrupt(7);
        assert_eq!(decode_answer(&encode_answer(&answer)), Ok(answer));
        let failed = encode_answer(&Answer::Failed("no".to_owned()));
        assert_eq!(decode_answer(&failed), Err("no".to_owned()));
        assert!(decode_answer(&[200]).is_err());
    }

    #[test]
    fn a_block_that_is_not_present_has_no_checksum() {
        let sum =
            SlotSum { slot: SlotNo::new(3), mask: 0b1000_0000_0000_0101, crcs: vec![10, 12, 25] };
        let all: Vec<_> = (0..17).map(|block| sum.crc(block)).collect();
        assert_eq!((all[0], all[1], all[2], all[15]), (Some(10), None, Some(12), Some(25)));
        assert_eq!(all.iter().flatten().count(), 3);
    }
}
