//! The stored and sent form of the replicated state.
//!
//! A snapshot is `magic (8 bytes) | version u32 | length u32 | CRC-32 of the
//! body u32 | body`, integers little-endian, the body serde's through
//! [`holdfast_types::codec`]. Enums in it are append-only; a changed struct raises the version.

use super::forms::{LogIdForm, StoredMembershipForm};
use super::state::{Answered, State};
use crate::Catalogue;
use holdfast_types::codec;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::VecDeque, sync::Arc};

/// First bytes of a snapshot.
const MAGIC: [u8; 8] = *b"HFcatlg\0";
/// Version written, and the only one that is understood. 1 was a file of one node alone.
const VERSION: u32 = 2;
/// Bytes before the body.
const HEADER_BYTES: usize = 20;
/// Largest body accepted: bounds what a damaged length, or a peer, can make us allocate. The
/// largest catalogue that the limits of its lists allow takes less.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Largest snapshot.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Not a snapshot.
    #[error("not a catalogue")]
    Foreign,
    /// Written by a later version.
    #[error("catalogue format {found} is newer than {VERSION}; upgrade holdfast")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Written by an earlier version.
    #[error(
        "catalogue format {found} is older than {VERSION}, of a release without clusters; it cannot be taken over: copy the data out with that release"
    )]
    Older {
        /// Its version.
        found: u32,
    },
    /// Cut short, or changed since it was written.
    #[error("the catalogue is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    last: Option<LogIdForm>,
    membership: StoredMembershipForm,
    catalogue: Cow<'a, Catalogue>,
    answers: Cow<'a, VecDeque<Answered>>,
}

/// The snapshot of `state`.
#[must_use]
pub(crate) fn encode(state: &State) -> Vec<u8> {
    let body = codec::encode(&Body {
        last: state.last.map(Into::into),
        membership: (&state.membership).into(),
        catalogue: Cow::Borrowed(state.catalogue.as_ref()),
        answers: Cow::Borrowed(&state.answers),
    });
    assert!(body.len() <= BODY_BYTES_MAX, "the catalogue's limits bound its size");
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// The state in `snapshot`.
pub(crate) fn decode(snapshot: &[u8]) -> Result<State, DecodeError> {
    let Some((header, body)) = snapshot.split_at_checked(HEADER_BYTES) else {
        return Err(DecodeError::Foreign);
    };
    if header[..8] != MAGIC {
        return Err(DecodeError::Foreign);
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    match word(8) {
        VERSION => {}
        found if found < VERSION => return Err(DecodeError::Older { found }),
        found => return Err(DecodeError::Newer { found }),
    }
    let len = word(12) as usize;
    if len > BODY_BYTES_MAX || len != body.len() {
        return Err(DecodeError::Damaged(format!("{} bytes instead of {len}", body.len())));
    }
    if crc32fast::hash(body) != word(16) {
        return Err(DecodeError::Damaged("its checksum does not match".to_owned()));
    }
    let body: Body<'static> = codec::decode::<_, BODY_BYTES_MAX>(body)
        .map_err(|error| DecodeError::Damaged(error.to_string()))?;
    Ok(State {
        last: body.last.map(Into::into),
        membership: body.membership.into(),
        catalogue: Arc::new(body.catalogue.into_owned()),
        answers: body.answers.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, LogId, Membership, Proposal, RaftId, RequestId, forms::EntryForm};
    use crate::{Command, Disk, Member, Node};
    use holdfast_types::{
        ClusterId, DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId,
    };
    use openraft::{BasicNode, EntryPayload, LeaderId};
    use std::collections::{BTreeMap, BTreeSet};

    /// One of every command, with its answer kept.
    fn commands() -> Vec<Command> {
        let volume = VolumeId::from_u128(0x11);
        let (node, disk) = (NodeId::from_u128(0x44), DiskId::from_u128(0x55));
        let replica = ReplicaId::from_u128(0x33);
        let second = Member {
            replica: ReplicaId::from_u128(0x34),
            node: NodeId::from_u128(0x45),
            disk: DiskId::from_u128(0x56),
            ready: true,
        };
        let member = Member { replica, node, disk, ready: false };
        let put = |id: NodeId, name: &str, peer: &str| {
            let (zone, api, nbd) = ("z".to_owned(), "h:3".to_owned(), "h:4".to_owned());
            Command::PutNode(Node {
                id,
                name: name.to_owned(),
                zone,
                peer: peer.to_owned(),
                api,
                nbd,
            })
        };
        let disk_of = |node: NodeId, id: DiskId| {
            Command::PutDisk(Disk { id, node, path: "/d".to_owned(), capacity_bytes: 1 << 40 })
        };
        let create = |id: VolumeId, name: &str, members: Vec<Member>| Command::CreateVolume {
            volume: id,
            name: name.parse().unwrap(),
            size_bytes: 1 << 30,
            logical_block_bytes: 512,
            history: HistoryId::from_u128(0x22),
            replicas: members.len() as u8,
            members,
            min_replicas: 1,
        };
        let other = Member { replica: ReplicaId::from_u128(0x35), ..member };
        vec![
            Command::InitCluster { cluster: ClusterId::from_u128(0x66) },
            put(node, "a", "h:1"),
            put(second.node, "b", "h:2"),
            put(NodeId::from_u128(0x46), "b", "h:9"),
            disk_of(node, disk),
            disk_of(second.node, second.disk),
            disk_of(NodeId::from_u128(0x99), DiskId::from_u128(0x57)),
            create(volume, "demo", vec![member, second]),
            create(VolumeId::from_u128(0x12), "gone", vec![other]),
            Command::DeleteVolume { volume: VolumeId::from_u128(0x12) },
            Command::ReplicaGone { volume: VolumeId::from_u128(0x12), replica: other.replica },
            Command::ReplicaReady { volume, replica },
            Command::Attach { volume, node, read_only: true },
            Command::GrantEpoch { volume, node, expected: Epoch::ZERO },
            Command::ChangeSet {
                volume,
                epoch: Epoch::new(1),
                generation: Generation::new(1),
                members: vec![replica],
            },
            Command::Resize { volume, size_bytes: 2 << 30 },
            Command::Resize { volume, size_bytes: 4096 },
            Command::RemoveDisk { disk: second.disk },
            Command::RemoveNode { node: second.node, force: true },
            Command::RemoveNode { node, force: false },
            Command::Detach { volume: VolumeId::from_u128(0x12) },
        ]
    }

    fn entries() -> Vec<Entry> {
        let leader_id = LeaderId { term: 3, node_id: RaftId::from(0x44) };
        let ids = BTreeSet::from([RaftId::from(0x44), RaftId::from(0x45)]);
        let address = |(id, addr): (u64, &str)| (RaftId::from(id), BasicNode::new(addr));
        let nodes = BTreeMap::from([(0x44, "h:1"), (0x45, "h:2"), (0x46, "h:9")].map(address));
        let mut payloads =
            vec![EntryPayload::Membership(Membership::new(vec![ids], nodes)), EntryPayload::Blank];
        payloads.extend(commands().into_iter().enumerate().map(|(i, command)| {
            EntryPayload::Normal(Proposal { request: RequestId(i as u128), since: 1, command })
        }));
        let entry =
            |(index, payload)| Entry { log_id: LogId { leader_id, index: index as u64 }, payload };
        payloads.into_iter().enumerate().map(entry).collect()
    }

    fn sample() -> State {
        let mut state = State::default();
        for entry in entries() {
            state.apply(entry);
        }
        state
    }

    fn check_golden(name: &str, golden: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let lines: Vec<_> = hex.as_bytes().chunks(96).map(|c| str::from_utf8(c).unwrap()).collect();
        let text = lines.join("\n") + "\n";
        assert_eq!(text, golden, "{name}: if this is meant, raise the version:\n{text}");
    }

    #[test]
    fn the_stored_form_is_pinned() {
        let bytes = encode(&sample());
        check_golden("snapshot", include_str!("../../golden/catalogue-v2.hex"), &bytes);
        assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
        let back = decode(&bytes).unwrap();
        assert_eq!(back.catalogue, sample().catalogue);
        assert_eq!((back.last, back.membership), (sample().last, sample().membership));
    }

    #[test]
    fn the_form_of_an_entry_is_pinned() {
        let forms: Vec<EntryForm> = entries().into_iter().map(Into::into).collect();
        let bytes = codec::encode(&forms);
        check_golden("entries", include_str!("../../golden/entries-v1.hex"), &bytes);
        let back: Vec<EntryForm> = codec::decode::<_, 65536>(&bytes).unwrap();
        assert_eq!(back, forms);
        let entries: Vec<Entry> = back.into_iter().map(Into::into).collect();
        assert_eq!(entries.into_iter().map(EntryForm::from).collect::<Vec<_>>(), forms);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let good = encode(&sample());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn other_versions_are_named() {
        let mut newer = encode(&sample());
        newer[8] = 7;
        assert_eq!(decode(&newer).unwrap_err(), DecodeError::Newer { found: 7 });
        let golden = include_str!("../../golden/catalogue-v1.hex");
        let hex: String = golden.split_whitespace().collect();
        let old: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let error = decode(&old).unwrap_err();
        assert_eq!(error, DecodeError::Older { found: 1 });
        assert!(error.to_string().contains("older than 2"), "{error}");
    }
}
