//! Receiving a snapshot, piece by piece. It is checked before Raft sees it: what a peer sends is
//! input, and must not stop this node.

use crate::raft::snapshot::{self, SNAPSHOT_BYTES_MAX};

/// The pieces so far of the snapshot that is under way.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    id: String,
    bytes: Vec<u8>,
}

/// What a piece was good for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// More are to come.
    Kept,
    /// It does not follow what is here.
    Misplaced,
    /// The snapshot is whole and sound.
    Whole(Vec<u8>),
    /// What came is no snapshot.
    Bad(String),
}

impl Receiving {
    pub(crate) fn piece(&mut self, id: &str, offset: u64, data: &[u8], done: bool) -> Piece {
        if offset == 0 {
            id.clone_into(&mut self.id);
            self.bytes.clear();
        }
        if self.id != id || self.bytes.len() as u64 != offset {
            return Piece::Misplaced;
        }
        if self.bytes.len() + data.len() > SNAPSHOT_BYTES_MAX {
            *self = Self::default();
            return Piece::Bad(format!("a snapshot has at most {SNAPSHOT_BYTES_MAX} bytes"));
        }
        self.bytes.extend_from_slice(data);
        if !done {
            return Piece::Kept;
        }
        let bytes = std::mem::take(self).bytes;
        match snapshot::decode(&bytes) {
            Ok(_) => Piece::Whole(bytes),
            Err(error) => Piece::Bad(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::State;

    #[test]
    fn pieces_make_a_snapshot_in_their_order_only() {
        let bytes = snapshot::encode(&State::default());
        let mut receiving = Receiving::default();
        assert_eq!(receiving.piece("a", 0, &bytes[..9], false), Piece::Kept);
        assert_eq!(receiving.piece("b", 9, &bytes[9..], true), Piece::Misplaced);
        assert_eq!(receiving.piece("a", 8, &bytes[8..], true), Piece::Misplaced);
        assert_eq!(receiving.piece("a", 9, &bytes[9..], true), Piece::Whole(bytes.clone()));
        assert_eq!(receiving.piece("a", 9, &bytes[9..], true), Piece::Misplaced, "again");
        assert_eq!(receiving.piece("b", 0, &bytes[..9], false), Piece::Kept);
        assert_eq!(receiving.piece("c", 0, &bytes, true), Piece::Whole(bytes.clone()), "anew");
        let mut bad = bytes;
        *bad.last_mut().unwrap() ^= 1;
        assert!(matches!(receiving.piece("d", 0, &bad, true), Piece::Bad(_)));
    }
}
