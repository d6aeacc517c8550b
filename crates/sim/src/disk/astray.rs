//! Writes that a disk acknowledges and does not carry out where it was told to: *lost*
//! ones never reach it, *misdirected* ones end up elsewhere, over something else.
//!
//! No protocol survives the loss of a durable write that nothing later speaks of: a log
//! whose last frame was lost ends before it, and looks like one to which that frame was
//! never written. So the disk remembers what it did, and whoever runs it calls
//! [`SimDisk::make_good`] on what nothing can find out before anybody has to.

use super::{
    SimDisk,
    change::{Change, PageChange},
    image::{Image, PageData},
};

/// Places tried for one to misdirect a write to that holds something.
const ATTEMPTS_MAX: u32 = 16;

/// What becomes of a write that goes astray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Lost,
    /// It is carried out somewhere else in the same file.
    Misdirected,
}

/// The write that will go astray.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    file: usize,
    way: Way,
    /// Writes of the file that end before it.
    skip: u64,
}

/// Pages of a file before and after.
#[derive(Clone, Debug)]
struct Span {
    first: u64,
    before: Vec<PageData>,
    after: Vec<PageData>,
}

/// A write that went astray.
#[derive(Clone, Debug)]
pub struct Wandered {
    file: usize,
    way: Way,
    /// Where it should have been: what is there still, and what should be.
    meant: Span,
    /// Where it is: what was there, and what is now.
    hit: Option<Span>,
}

impl Wandered {
    /// What became of it.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Where it should have been, in pages of its file.
    #[must_use]
    pub fn pages(&self) -> std::ops::Range<u64> {
        self.meant.first..self.meant.first + self.meant.after.len() as u64
    }
}

impl SimDisk {
    /// The write of the file called `name` that ends after `skip` others of it goes astray.
    /// False, and nothing happens, if there is no such file.
    pub fn lead_astray(&mut self, name: &str, way: Way, skip: u64) -> bool {
        let Some(file) = self.named(name) else { return false };
        self.aim = Some(Aim { file, way, skip });
        true
    }

    /// Nothing that has not gone astray yet will.
    pub fn aim_at_nothing(&mut self) {
        self.aim = None;
    }

    /// What went astray in the file called `name`, and was not made good.
    pub fn astray(&self, name: &str) -> impl Iterator<Item = &Wandered> {
        let file = self.named(name);
        self.wandered.iter().filter(move |wandered| Some(wandered.file) == file)
    }

    /// Whether anything went astray, or will.
    #[must_use]
    pub fn is_astray(&self) -> bool {
        self.aim.is_some() || !self.wandered.is_empty()
    }

    /// What went astray so far stays as it is.
    pub fn forget_astray(&mut self) {
        self.wandered.clear();
    }

    /// Carries out, late, what went astray in the file called `name`, and puts back what it
    /// hit; pages that were written since stay as they are.
    pub fn make_good(&mut self, name: &str) {
        let Some(file) = self.named(name) else { return };
        let (these, others) = std::mem::take(&mut self.wandered)
            .into_iter()
            .partition::<Vec<_>, _>(|wandered| wandered.file == file);
        self.wandered = others;
        for wandered in these {
            self.trace.note(&[8, file as u64, wandered.meant.first], || {
                format!("disk: a write of {name} page {} is made good", wandered.meant.first)
            });
            let Some(file) = self.files.get_mut(file) else { continue };
            for image in [&mut file.live, &mut file.durable] {
                if let Some(hit) = &wandered.hit {
                    replace(image, hit.first, &hit.after, &hit.before);
                }
                let Span { first, before, after } = &wandered.meant;
                replace(image, *first, before, after);
            }
        }
    }

    /// Whether a write that ends now goes astray; it is taken care of then.
    pub(super) fn strays(&mut self, file: usize, change: &Change, durable: bool) -> bool {
        let Some(aim) = self.aim.as_mut().filter(|aim| aim.file == file) else { return false };
        if let Some(skip) = aim.skip.checked_sub(1) {
            aim.skip = skip;
            return false;
        }
        let way = aim.way;
        let to = match way {
            Way::Lost => None,
            Way::Misdirected => match self.elsewhere(file, change) {
                Some(to) => Some(to),
                // Too little there to hit.
                None => return false,
            },
        };
        self.aim = None;
        let live = &self.files[file].live;
        let after: Vec<PageData> = change.pages.iter().map(content_of).collect();
        let before_at =
            |first: u64| (first..first + after.len() as u64).map(|page| live.page(page));
        let meant = Span {
            first: change.first,
            before: before_at(change.first).collect(),
            after: after.clone(),
        };
        let hit =
            to.map(|to| Span { first: to, before: before_at(to).collect(), after: after.clone() });
        self.counts.astray += 1;
        self.trace.note(&[9, file as u64, change.first, to.unwrap_or(u64::MAX)], || {
            let name = &self.files[file].name;
            let pages = change.first..change.end();
            match to {
                Some(to) => format!("disk: a write of {name} pages {pages:?} lands at {to}"),
                None => format!("disk: a write of {name} pages {pages:?} is LOST"),
            }
        });
        self.wandered.push(Wandered { file, way, meant, hit });
        if let Some(to) = to {
            self.carry_out(file, Change::new(to, change.pages.clone()), durable);
        }
        true
    }

    /// A place in the file for a change that was meant for another.
    fn elsewhere(&mut self, file: usize, change: &Change) -> Option<u64> {
        let live = &self.files[file].live;
        let len = change.pages.len() as u64;
        let pages = live.bytes() / super::PAGE_BYTES as u64;
        let last = pages.checked_sub(len).filter(|last| *last > 0)?;
        let rng = &mut self.rng;
        let mut places = (0..ATTEMPTS_MAX).map(|_| rng.within(0..last + 1));
        places.find(|to| {
            let holds = (*to..to + len).any(|page| live.page(page).is_some());
            let all = (*to..to + len).all(|page| live.is_allocated(page));
            holds && all && !change.overlaps(*to, to + len)
        })
    }
}

fn content_of(page: &PageChange) -> PageData {
    match page {
        PageChange::Write(data) => data.clone(),
        PageChange::Nothing | PageChange::Punch | PageChange::Allocate => None,
    }
}

/// Puts `new` where `old` still is.
fn replace(image: &mut Image, first: u64, old: &[PageData], new: &[PageData]) {
    for (number, (old, new)) in (first..).zip(old.iter().zip(new)) {
        if image.page(number) == *old {
            image.set_page(number, new.clone());
        }
    }
}
