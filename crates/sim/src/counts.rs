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
    /// Simulated time, in milliseconds.
    simulated_ms,
    /// Power cuts.
    cuts,
    /// Power cuts while a log was being recovered.
    cuts_in_recovery,
    /// Power cuts while a checkpoint was being written.
    cuts_in_checkpoint,
    /// Power cuts while a disk was being formatted.
    cuts_in_format,
    /// Logs whose last frame had been written in part.
    torn_tails,
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
    /// Replicas with a damaged log that started over.
    rejoins,
    /// Operations that the disk failed with EIO.
    io_errors,
    /// Disks made slow.
    slow_disks,
    /// Disks filled up by others.
    full_disks,
    /// Disks that had room again.
    room_again,
    /// Disks that failed operations for a while.
    broken_disks,
    /// Writes lost or misdirected.
    astray,
    /// Those of them that nothing could have noticed, and that were carried out late.
    made_good,
    /// Writes of engines that are gone, decided as another serves.
    writes_decided,
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
    /// Power cuts of all nodes at once.
    cuts_of_all,
    /// Processes paused.
    pauses,
    /// Those of them that outlasted a lease.
    pauses_beyond_lease,
    /// Nodes cut off from all others.
    partitions,
    /// Directions cut.
    one_way,
    /// Directions made slow.
    slow_links,
    /// Directions of connections held back.
    holds,
    /// Connections lost.
    resets,
    /// Messages of which a bit flipped on the way.
    frames_damaged,
    /// Peers taken for gone because they were silent.
    peers_silent,
    /// Times the metadata group lost its quorum.
    metadata_away,
    /// Times that it had it again while things still went wrong.
    metadata_back,
    /// Questions that the metadata group has carried out.
    questions,
    /// Attachments to another node, or to the same one again.
    attaches,
    /// Those of them while the old engine lived on, out of reach or not.
    hand_overs,
    /// Engines that came to serve.
    served,
    /// Engines that stopped because they were fenced off.
    engines_fenced,
    /// Reads answered by an engine while another one of the volume was there.
    reads_in_hand_over,
    /// Reads sent to another node.
    remote_reads,
    /// Volumes that grants listed as fenced.
    fences_listed,
    /// Changes of replica sets that engines asked for.
    set_proposals,
    /// Sets from which a member was taken.
    set_shrunk,
    /// Sets that became whole again.
    set_grown,
    /// Appends of committed records to members that had missed them, from the engine's window.
    sent_from_window,
    /// Catch-ups asked of members.
    catch_ups,
    /// Connections to sources.
    pulls,
    /// Answers of sources that held records.
    pulls_by_records,
    /// Records fetched.
    records_fetched,
    /// Answers of sources that held slots.
    pulls_by_slots,
    /// Slots fetched.
    slots_fetched,
    /// Appends refused because the record before them is another one.
    mismatches,
    /// Writes acknowledged.
    writes_acked,
    /// Writes whose outcome their clients never learnt.
    unknown_outcomes,
    /// Blocks of such writes that were decided: a newer connection of the client changed something.
    late_writes_decided,
    /// Clients that gave a node up.
    clients_left,
    /// Requests answered with an error.
    errors,
    /// Disks compared with what they were counted for.
    disks_compared,
    /// Replicas compared with all that was committed.
    digests,
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
