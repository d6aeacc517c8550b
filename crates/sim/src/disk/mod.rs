//! A simulated disk: seeded, with every liberty that a real one may take.
//!
//! Operations end in a seeded random order. A write reaches the *live* image
//! when it ends (a read that overlaps it may see any of its sectors before).
//! It reaches the *durable* image when it was submitted as durable, or when a
//! sync that was submitted after its end has ended. Whatever is not durable at a
//! power cut is kept, lost or torn at 512 bytes, each on its own, see
//! [`SimDisk::power_cut`]. Nothing here depends on anything but the seed and
//! the operations.

mod astray;
mod change;
mod device;
mod end;
mod faults;
mod image;
mod power;
#[cfg(test)]
mod tests;

pub use astray::{Wandered, Way};
pub use faults::Faults;
pub use image::{PAGE_BYTES, SECTOR_BYTES};
pub use power::CutMood;

use crate::{rng::SimRng, trace::Trace};
use astray::Aim;
use change::{Change, PageChange};
use end::failed;
use holdfast_io::{Completion, FileId, Op, Token};
use image::{Image, PageData, page_of};
use std::io;

/// A simulated disk's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// One raw address space instead of named files.
    pub device: bool,
    /// Bytes of the device, or that the files may take together.
    pub capacity_bytes: u64,
}

/// What a disk did, for the run's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Operations that failed with an injected EIO.
    pub io_errors: u64,
    /// Operations that failed for want of space.
    pub no_space: u64,
    /// Bits flipped.
    pub bit_flips: u64,
    /// Writes lost or misdirected.
    pub astray: u64,
    /// Undurable changes that the last cut kept whole.
    pub kept: u64,
    /// Undurable changes that the last cut lost whole.
    pub lost: u64,
    /// Undurable changes that the last cut tore.
    pub torn: u64,
}

/// Typical duration of an operation, in nanoseconds.
const LATENCY_NS: std::ops::Range<u64> = 20_000..200_000;
/// Duration of the few that straggle, so that others overtake them by far.
const STRAGGLER_NS: std::ops::Range<u64> = 200_000..5_000_000;
/// Stragglers among a hundred.
const STRAGGLER_PERCENT: u32 = 8;

/// A seeded disk; see the module's documentation.
pub struct SimDisk {
    rng: SimRng,
    trace: Trace,
    options: DiskOptions,
    faults: Faults,
    /// Until then; `None`: for good.
    faults_until_ns: Option<u64>,
    /// Space that others have taken.
    taken_bytes: u64,
    aim: Option<Aim>,
    wandered: Vec<Wandered>,
    files: Vec<SimFile>,
    handles: Vec<Handle>,
    in_flight: Vec<InFlight>,
    /// Ended but not yet handed out: what could not be carried out at all.
    ended: Vec<Completion>,
    now_ns: u64,
    completions: u64,
    power: Power,
    counts: DiskCounts,
    misuse: Option<String>,
}

/// A bit that was flipped.
pub struct Flip {
    file: usize,
    number: u64,
    before: (PageData, PageData),
    flipped: PageData,
}

/// Whether, and until when, the disk carries operations out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Goes off instead of the completion after this many.
    OffAfter(u64),
    Off,
}

#[derive(Clone)]
struct SimFile {
    name: String,
    live: Image,
    durable: Image,
    /// Carried out on `live`, not on `durable`; in the order of their ends.
    volatile: Vec<Change>,
}

#[derive(Clone, Copy)]
struct Handle {
    file: usize,
    read_only: bool,
}

struct InFlight {
    token: Token,
    file: usize,
    offset: u64,
    len: u64,
    due_ns: u64,
    kind: Kind,
}

enum Kind {
    Read(holdfast_io::BufMut),
    Write { change: Change, bufs: Vec<holdfast_io::Buf>, durable: bool },
    Sync { covers: u64 },
    Allocate(Change),
    Discard(Change),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write { .. } => "write",
            Self::Sync { .. } => "sync",
            Self::Allocate(_) => "allocate",
            Self::Discard(_) => "discard",
        }
    }

    fn change(&self) -> Option<&Change> {
        match self {
            Self::Write { change, .. } | Self::Allocate(change) | Self::Discard(change) => {
                Some(change)
            }
            Self::Read(_) | Self::Sync { .. } => None,
        }
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, options: DiskOptions, trace: Trace) -> Self {
        let mut files = Vec::new();
        if options.device {
            let mut image = Image::default();
            image.extend_to(options.capacity_bytes);
            files.push(SimFile {
                name: "device".to_owned(),
                live: image.clone(),
                durable: image,
                volatile: Vec::new(),
            });
        }
        Self::on(seed, options, trace, files)
    }

    fn on(seed: u64, options: DiskOptions, trace: Trace, files: Vec<SimFile>) -> Self {
        Self {
            rng: SimRng::of(seed, "disk"),
            trace,
            options,
            faults: Faults::NONE,
            faults_until_ns: None,
            taken_bytes: 0,
            aim: None,
            wandered: Vec::new(),
            files,
            handles: Vec::new(),
            in_flight: Vec::new(),
            ended: Vec::new(),
            now_ns: 0,
            completions: 0,
            power: Power::On,
            counts: DiskCounts::default(),
            misuse: None,
        }
    }

    /// What the next process finds instead of this disk: its files, and what is wrong with it.
    fn after(&self, seed: u64, files: Vec<SimFile>) -> Self {
        let mut disk = Self::on(seed, self.options, self.trace.clone(), files);
        if self.faults_until_ns.is_some() {
            (disk.faults, disk.faults_until_ns) = (self.faults, self.faults_until_ns);
        }
        disk.taken_bytes = self.taken_bytes;
        (disk.aim, disk.wandered) = (self.aim, self.wandered.clone());
        disk
    }

    /// Lets the power fail instead of the completion after the next `completions`:
    /// whatever is in flight at that moment ends with an error, and so does all
    /// that follows.
    pub fn power_off_after(&mut self, completions: u64) {
        self.power = Power::OffAfter(self.completions + completions);
    }

    /// Takes back what [`Self::power_off_after`] arranged, if it has not come yet.
    pub fn power_stays_on(&mut self) {
        if !self.is_off() {
            self.power = Power::On;
        }
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.power == Power::Off
    }

    /// Operations that have ended since the disk was made or reopened.
    #[must_use]
    pub fn completions(&self) -> u64 {
        self.completions
    }

    /// Simulated time since the disk was made or reopened.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// When the operation that is due first ends; none does after a loss of power.
    #[must_use]
    pub fn next_end_ns(&self) -> Option<u64> {
        match (self.ended.is_empty(), self.power) {
            (false, _) => Some(self.now_ns),
            (true, Power::Off) => None,
            (true, _) => self.in_flight.iter().map(|op| op.due_ns).min(),
        }
    }

    /// Time goes on, for whoever keeps it for several disks: what is due by then ends
    /// at the next poll.
    pub fn advance_to(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.trace.at(self.now_ns);
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.counts
    }

    /// What its user did that no disk gives an answer to: two writes of the same
    /// page in flight at once.
    #[must_use]
    pub fn misuse(&self) -> Option<&str> {
        self.misuse.as_deref()
    }

    /// Length of a file by name, without opening it; zero if there is none.
    #[must_use]
    pub fn file_bytes(&self, name: &str) -> u64 {
        self.named(name).map_or(0, |file| self.files[file].live.bytes())
    }

    /// Whether `file` is the one called `name`; never on a device.
    #[must_use]
    pub fn is_named(&self, file: FileId, name: &str) -> bool {
        self.file(file).is_ok_and(|file| self.files[file].name == name)
    }

    /// Whether page `number` of the file has content other than zeroes.
    #[must_use]
    pub fn has_content(&self, name: &str, number: u64) -> bool {
        self.named(name).is_some_and(|file| self.files[file].live.page(number).is_some())
    }

    /// Flips one bit of page `number` at rest; `bit` counts from the page's start.
    /// `None` if there is no such file.
    pub fn flip_bit(&mut self, name: &str, number: u64, bit: usize) -> Option<Flip> {
        let file = self.named(name)?;
        let SimFile { live, durable, .. } = &mut self.files[file];
        let before = (live.page(number), durable.page(number));
        live.flip(number, bit);
        durable.flip(number, bit);
        let flipped = live.page(number);
        self.counts.bit_flips += 1;
        self.trace.note(&[7, file as u64, number, bit as u64], || {
            format!("disk: bit {bit} of page {number} of {name} flips")
        });
        Some(Flip { file, number, before, flipped })
    }

    /// Takes a flip back, unless the page was written since.
    pub fn take_back(&mut self, flip: &Flip) {
        let SimFile { live, durable, .. } = &mut self.files[flip.file];
        if live.page(flip.number) == flip.flipped {
            live.set_page(flip.number, flip.before.0.clone());
            durable.set_page(flip.number, flip.before.1.clone());
        }
    }

    fn named(&self, name: &str) -> Option<usize> {
        match self.options.device {
            true => Some(0),
            false => self.files.iter().position(|file| file.name == name),
        }
    }

    fn file(&self, file: FileId) -> io::Result<usize> {
        match self.handles.get(file.0 as usize) {
            Some(handle) => Ok(handle.file),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such handle")),
        }
    }

    fn allocated_bytes(&self) -> u64 {
        let pages: u64 = self.files.iter().map(|file| file.live.allocated_pages()).sum();
        pages * PAGE_BYTES as u64
    }

    fn start(&mut self, token: Token, op: Op) {
        let (handle, offset, len) = match &op {
            Op::Read { file, offset, buf } => (*file, *offset, buf.len() as u64),
            Op::Write { file, offset, bufs, .. } => {
                (*file, *offset, bufs.iter().map(|buf| buf.len() as u64).sum())
            }
            Op::Sync { file } => (*file, 0, 0),
            Op::Allocate { file, offset, len } | Op::Discard { file, offset, len } => {
                (*file, *offset, *len)
            }
        };
        let page_bytes = PAGE_BYTES as u64;
        assert!(
            offset.is_multiple_of(page_bytes) && len.is_multiple_of(page_bytes),
            "{op:?} is not aligned"
        );
        let Some(Handle { file, read_only }) = self.handles.get(handle.0 as usize).copied() else {
            panic!("{op:?} names a file that was never opened");
        };
        let (first, count) = (offset / page_bytes, len / page_bytes);
        let kind = match op {
            Op::Read { buf, .. } => Kind::Read(buf),
            Op::Write { bufs, durable, .. } => {
                let pages = bufs.iter().flat_map(|buf| buf.chunks(PAGE_BYTES));
                let pages = pages.map(|page| PageChange::Write(page_of(page))).collect();
                Kind::Write { change: Change::new(first, pages), bufs, durable }
            }
            Op::Sync { .. } => Kind::Sync { covers: self.completions },
            Op::Allocate { .. } => {
                let pages = (0..count).map(|_| PageChange::Allocate).collect();
                Kind::Allocate(Change::new(first, pages))
            }
            Op::Discard { .. } => {
                // Space that is given back reads as zeroes or as before.
                let pages = (0..count)
                    .map(|_| match self.rng.percent(50) {
                        true => PageChange::Punch,
                        false => PageChange::Nothing,
                    })
                    .collect();
                Kind::Discard(Change::new(first, pages))
            }
        };
        let takes_ns = match self.rng.percent(STRAGGLER_PERCENT) {
            true => self.rng.within(STRAGGLER_NS),
            false => self.rng.within(LATENCY_NS),
        };
        let due_ns = self.now_ns + takes_ns * u64::from(self.faults().slowness.max(1));
        let durable = matches!(kind, Kind::Write { durable: true, .. });
        self.trace.note(
            &[1, token.0, file as u64, offset, len, u64::from(durable), due_ns],
            || {
                let flag = if durable { " durable" } else { "" };
                let name = &self.files[file].name;
                format!(
                    "disk: submit{flag} {} {name} {offset}+{len} token {:x}",
                    kind.name(),
                    token.0
                )
            },
        );
        let op = InFlight { token, file, offset, len, due_ns, kind };
        if self.power == Power::Off {
            return self.ended.push(failed(&self.files, op, "the power is off"));
        }
        if read_only && op.kind.change().is_some() {
            return self.ended.push(failed(&self.files, op, "opened for reading only"));
        }
        self.note_misuse(&op);
        self.in_flight.push(op);
    }

    fn note_misuse(&mut self, op: &InFlight) {
        let Some(change) = op.kind.change() else { return };
        let clash = self.in_flight.iter().find(|other| {
            other.file == op.file
                && other.kind.change().is_some_and(|c| c.overlaps(change.first, change.end()))
        });
        if let Some(other) = clash {
            let name = &self.files[op.file].name;
            self.misuse.get_or_insert_with(|| {
                format!(
                    "{} of {name} {}+{} (token {:x}) beside {} of {}+{} (token {:x}) in flight",
                    op.kind.name(),
                    op.offset,
                    op.len,
                    op.token.0,
                    other.kind.name(),
                    other.offset,
                    other.len,
                    other.token.0,
                )
            });
        }
    }
}

impl SimFile {
    fn sync(&mut self, covers: u64) {
        let volatile = std::mem::take(&mut self.volatile);
        for change in volatile {
            match change.completed_at <= covers && !change.doomed {
                true => self.make_durable(&change),
                false => self.volatile.push(change),
            }
        }
    }

    fn make_durable(&mut self, change: &Change) {
        change.apply_all(&mut self.durable);
        for older in &mut self.volatile {
            if older.completed_at < change.completed_at
                && older.overlaps(change.first, change.end())
            {
                older.superseded_by(change);
            }
        }
    }
}
