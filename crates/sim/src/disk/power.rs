//! What is left of a disk after its power failed, or after its user was killed.

use super::{DiskCounts, Kind, SimDisk, SimFile, change::Change};
use crate::rng::SimRng;

/// How a power cut treats what is not durable. Each cut draws one: a disk that
/// loses or keeps everything hides what one that mixes shows, and the reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMood {
    /// Nothing undurable survives.
    LosesAll,
    /// All of it survives.
    KeepsAll,
    /// Each change survives whole or not at all.
    Whole,
    /// Each change survives whole, not at all, or in some of its sectors.
    Tears,
}

/// What a torn change keeps, in sectors counted from its start.
enum Tear {
    Before(u64),
    From(u64),
    Without(u64),
    Only(u64),
    Each,
}

impl CutMood {
    fn draw(rng: &mut SimRng) -> Self {
        match rng.within(0..100) {
            0..12 => Self::LosesAll,
            12..20 => Self::KeepsAll,
            20..45 => Self::Whole,
            _ => Self::Tears,
        }
    }
}

impl SimDisk {
    /// What a power cut leaves, as a fresh disk: whatever is not durable, ended
    /// or in flight, is kept, lost or torn, as `seed` draws it.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut rng = SimRng::of(seed, "cut");
        let mood = CutMood::draw(&mut rng);
        self.power_cut_in(mood, seed)
    }

    /// As [`Self::power_cut`], in the mood given.
    #[must_use]
    pub fn power_cut_in(&self, mood: CutMood, seed: u64) -> Self {
        let mut rng = SimRng::of(seed, "tear");
        let mut counts = DiskCounts { kept: 0, lost: 0, torn: 0, ..self.counts };
        let mut files = Vec::with_capacity(self.files.len());
        for (index, file) in self.files.iter().enumerate() {
            let mut survived = file.durable.clone();
            for change in file.volatile.iter().chain(self.changes_in_flight(index)) {
                survive(change, mood, &mut rng, &mut counts, &mut survived);
            }
            files.push(SimFile {
                name: file.name.clone(),
                live: survived.clone(),
                durable: survived,
                volatile: Vec::new(),
            });
        }
        self.trace.note(&[5, counts.kept, counts.lost, counts.torn], || {
            format!(
                "disk: POWER CUT ({mood:?}): {} changes kept, {} lost, {} torn",
                counts.kept, counts.lost, counts.torn
            )
        });
        let mut disk = self.after(seed, files);
        disk.counts = counts;
        disk
    }

    /// What the next process finds after this one was killed under power, as a
    /// fresh disk: all that ended is there, durable or not; what was in flight
    /// may be there in part; none of it becomes durable by that.
    #[must_use]
    pub fn killed(&self, seed: u64) -> Self {
        let mut rng = SimRng::of(seed, "kill");
        let mut counts = DiskCounts { kept: 0, lost: 0, torn: 0, ..self.counts };
        let mut files = self.files.clone();
        for (index, file) in files.iter_mut().enumerate() {
            for change in self.changes_in_flight(index) {
                // The kernel goes on without the process: whole, or not begun.
                if rng.percent(60) || change.seen {
                    let mut change = change.clone();
                    change.apply_all(&mut file.live);
                    change.completed_at = 0;
                    file.volatile.push(change);
                    counts.kept += 1;
                } else {
                    counts.lost += 1;
                }
            }
            for change in &mut file.volatile {
                change.completed_at = 0;
            }
        }
        self.trace.note(&[6, counts.kept, counts.lost], || {
            format!("disk: process killed: {} in flight done, {} not", counts.kept, counts.lost)
        });
        let mut disk = self.after(seed, files);
        disk.counts = counts;
        disk
    }

    fn changes_in_flight(&self, file: usize) -> impl Iterator<Item = &Change> {
        self.in_flight.iter().filter(move |op| op.file == file).filter_map(|op| match &op.kind {
            Kind::Write { change, .. } | Kind::Allocate(change) | Kind::Discard(change) => {
                Some(change)
            }
            Kind::Read(_) | Kind::Sync { .. } => None,
        })
    }
}

fn survive(
    change: &Change,
    mood: CutMood,
    rng: &mut SimRng,
    counts: &mut DiskCounts,
    survived: &mut super::Image,
) {
    let fate = match mood {
        CutMood::LosesAll => 0,
        CutMood::KeepsAll => 1,
        CutMood::Whole => rng.within(0..2),
        CutMood::Tears => rng.within(0..3),
    };
    let sectors = change.sectors();
    match fate {
        0 => counts.lost += 1,
        1 => {
            counts.kept += 1;
            change.apply_all(survived);
        }
        _ => {
            counts.torn += 1;
            let at = rng.within(0..sectors.max(1));
            let tear = match rng.within(0..5) {
                // A file system gives a file space and length together, from its end on.
                _ if change.is_allocation() => Tear::Before(at),
                0 => Tear::Before(at),
                1 => Tear::From(at),
                2 => Tear::Without(at),
                3 => Tear::Only(at),
                _ => Tear::Each,
            };
            change.apply(survived, |sector| match tear {
                Tear::Before(end) => sector < end,
                Tear::From(start) => sector >= start,
                Tear::Without(hole) => sector != hole,
                Tear::Only(one) => sector == one,
                Tear::Each => rng.percent(50),
            });
        }
    }
}
