//! What happened in a run, in numbers: a run in which little happened proves
//! little, so the tests ask for minima.

use std::fmt;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Events of a run.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Name and value of each.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counts! {
    /// Power cuts.
    cuts,
    /// Power cuts while a log was being recovered.
    cuts_in_recovery,
    /// Power cuts while a checkpoint was being written.
    cuts_in_checkpoint,
    /// Processes killed under power.
    kills,
    /// Undurable changes that a cut kept.
    changes_kept,
    /// Undurable changes that a cut lost.
    changes_lost,
    /// Undurable changes that a cut tore.
    changes_torn,
    /// Recoveries that ended well.
    recoveries,
    /// Records that recoveries found in the log.
    records_recovered,
    /// Recovered logs that held records never acknowledged.
    unacked_recovered,
    /// Recovered logs that had lost records never acknowledged.
    unacked_lost,
    /// Bits flipped at rest.
    bit_flips,
    /// Blocks that were answered with an error instead of damaged data.
    damage_answered,
    /// Logs found suspect after damage.
    suspect_logs,
    /// Operations that the disk failed with EIO.
    io_errors,
    /// Disks that latched as failed.
    disks_failed,
    /// Operations that the disk failed with ENOSPC.
    no_space,
    /// Writes refused to the client for want of space.
    space_refused,
    /// Appends that waited for room in the log.
    log_full,
    /// Durable writes of the log.
    wal_writes,
    /// Log segments entered for the second time or later.
    segment_reuses,
    /// Checkpoints whose superblock was written.
    checkpoints,
    /// Large writes that went straight to a fresh slot.
    fresh_writes,
    /// Records appended.
    records,
    /// Records that discard.
    discards,
    /// Records that change the size.
    resizes,
    /// Epochs begun.
    epochs,
    /// Truncations confirmed.
    truncations,
    /// Volumes created.
    volumes_created,
    /// Volumes deleted.
    volumes_deleted,
    /// Stores drained and checked offline.
    checked,
    /// Reads answered.
    reads,
    /// Blocks read and compared.
    blocks_verified,
    /// Client operations (writes, discards, reads) whose result was verified.
    operations,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, value) in self.each().filter(|(_, value)| *value > 0) {
            write!(f, "{}{name}={value}", if first { "" } else { " " })?;
            first = false;
        }
        Ok(())
    }
}
