//! Who is measured together: as many side by side as there is room for.

use crate::subject::Kind;

/// Left free for everything else on the disk.
const RESERVE_BYTES: u64 = 1 << 30;

/// Servers that are measured together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// For a heading.
    pub title: String,
    /// In the order of the table.
    pub kinds: Vec<Kind>,
    /// Whether they take turns in every round.
    pub interleaved: bool,
}

/// Divides `kinds` into groups that find room in `free_bytes` when their jobs touch `area_bytes`.
///
/// The first group takes all that fit side by side. Each of the rest, and each that has to be
/// alone, has a group with rounds of Holdfast and of the baseline of its own, so that its ratios
/// are of one time.
///
/// # Errors
/// In words, when one does not find room even alone.
pub fn divide(kinds: &[Kind], area_bytes: u64, free_bytes: u64) -> Result<Vec<Group>, String> {
    let room = free_bytes.saturating_sub(RESERVE_BYTES);
    let need = |kinds: &[Kind]| -> u64 {
        // Those with one directory have the same files.
        let first = |at: usize| !kinds[..at].iter().any(|kind| kind.dir() == kinds[at].dir());
        let all = (0..kinds.len()).filter(|at| first(*at));
        all.map(|at| kinds[at].room_bytes(area_bytes)).sum()
    };
    for kind in kinds {
        let needed = need(&[*kind]);
        if needed > room {
            let mib = |bytes: u64| bytes >> 20;
            return Err(format!(
                "{} needs {} MiB of disk, and {} are free: choose a smaller --area, another --dir, or other --peers",
                kind.id(),
                mib(needed + RESERVE_BYTES),
                mib(free_bytes),
            ));
        }
    }
    let mut together = Vec::new();
    let mut rest = Vec::new();
    for kind in by_importance(kinds) {
        together.push(kind);
        if kind.is_apart() || need(&together) > room {
            together.pop();
            rest.push(kind);
        }
    }
    let mut groups = Vec::new();
    if !together.is_empty() {
        together.sort_unstable();
        groups.push(Group { title: "side by side".to_owned(), kinds: together, interleaved: true });
    }
    for kind in rest {
        let companions = [Kind::HoldfastX3, Kind::QemuNbd];
        let companions = companions.into_iter().filter(|other| kinds.contains(other));
        let mut with: Vec<Kind> = companions.filter(|other| *other != kind).collect();
        with.push(kind);
        with.sort_unstable();
        let interleaved = !kind.is_apart() && need(&with) <= room;
        groups.push(Group { title: kind.column().title, kinds: with, interleaved });
    }
    Ok(groups)
}

/// Those first that the others are compared with.
fn by_importance(kinds: &[Kind]) -> Vec<Kind> {
    let rank = |kind: &Kind| match kind {
        Kind::HoldfastX3 => 0,
        Kind::QemuNbd => 1,
        Kind::Raw => 2,
        _ => 3,
    };
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.sort_by_key(rank);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const AREA: u64 = 4 * GIB;
    const ALL: [Kind; 4] = [Kind::Quorum, Kind::Raw, Kind::QemuNbd, Kind::HoldfastX3];

    #[test]
    fn all_side_by_side_where_there_is_room() {
        let groups = divide(&ALL, AREA, 100 * GIB).unwrap();
        assert_eq!(groups.len(), 1);
        let order = [Kind::HoldfastX3, Kind::Raw, Kind::QemuNbd, Kind::Quorum];
        assert_eq!(groups[0].kinds, order);
        assert!(groups[0].interleaved);
    }

    #[test]
    fn what_does_not_fit_comes_later_with_rounds_of_holdfast() {
        let groups = divide(&ALL, AREA, 24 * GIB).unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].kinds, [Kind::HoldfastX3, Kind::Raw, Kind::QemuNbd]);
        assert_eq!(groups[1].kinds, [Kind::HoldfastX3, Kind::QemuNbd, Kind::Quorum]);
        assert!(!groups[1].interleaved);
    }

    #[test]
    fn says_what_needs_more_than_there_is() {
        let message = divide(&ALL, AREA, 10 * GIB).unwrap_err();
        assert!(message.contains("quorum needs") && message.contains("--area"), "{message}");
    }
}
