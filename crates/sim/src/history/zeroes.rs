//! Whose zeroes a read saw: those of the block's beginning, or of a discard.
//!
//! A read may have seen a discard that began before the read was over, unless another write was
//! begun when the discard was over, and had taken effect when the read began. Where one is left,
//! it is that one. Where several are, the read belongs to none of them.

use super::{Moment, Step, zones::Cluster};
use crate::model::WriteId;
use std::collections::BTreeMap;

/// Adds those of `reads`, which saw zeroes, of which it is known, to what they have read from.
///
/// # Errors
/// A read that can have seen nobody's.
pub(super) fn assign(
    clusters: &mut BTreeMap<WriteId, Cluster>,
    reads: &[Step],
) -> Result<(), String> {
    if reads.is_empty() {
        return Ok(());
    }
    // Values that took effect: when they began and had surely taken effect.
    let values: Vec<&Cluster> =
        clusters.values().filter(|cluster| !cluster.is_zeroes() && cluster.took_effect()).collect();
    for read in reads {
        if let Some(value) = values.iter().find(|value| value.holds(*read)) {
            return Err(format!("{read} read zeroes within {}", value.told()));
        }
    }
    // When each one's zeroes were surely gone.
    let gone = |cluster: &Cluster| {
        let behind = values.iter().filter(|value| value.span().0 > cluster.span().1);
        behind.map(|value| value.first_end()).min().unwrap_or(Moment::MAX)
    };
    let zeroes: Vec<(WriteId, Moment, Moment)> = clusters
        .iter()
        .filter(|(_, cluster)| cluster.is_zeroes())
        .map(|(id, cluster)| (*id, cluster.span().0, gone(cluster)))
        .collect();
    for read in reads {
        let may = |(_, begun, gone): &&(WriteId, Moment, Moment)| {
            *begun < read.end() && *gone >= read.begun
        };
        let mut found = zeroes.iter().filter(may);
        match (found.next(), found.next()) {
            (None, _) => return Err(format!("{read} read zeroes that were overwritten")),
            (Some((id, ..)), None) => {
                if let Some(cluster) = clusters.get_mut(id) {
                    cluster.add_read(*read)?;
                }
            }
            (Some(_), Some(_)) => {}
        }
    }
    Ok(())
}
