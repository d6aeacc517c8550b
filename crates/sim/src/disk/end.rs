//! How operations end: carried out, failed, or cut off with the power.

use super::{
    InFlight, Kind, PAGE_BYTES, Power, SimDisk, SimFile,
    change::{Change, PageChange},
};
use holdfast_io::{Completion, DiskError, DiskErrorKind, OpResult};

impl SimDisk {
    /// Ends the operation that is due first, or cuts the power instead.
    pub(super) fn end_next(&mut self, done: &mut Vec<Completion>) {
        let earliest = self.in_flight.iter().enumerate().min_by_key(|(_, op)| op.due_ns);
        let Some((index, _)) = earliest else { return };
        if self.power == Power::OffAfter(self.completions) {
            self.power = Power::Off;
            self.trace.note(&[3], || format!("disk: power off after {}", self.completions));
            // The changes stay in flight: the cut decides about them.
            for op in &mut self.in_flight {
                let kind = std::mem::replace(&mut op.kind, Kind::Sync { covers: 0 });
                let (kept, gone) = split(kind);
                op.kind = kept;
                self.ended.push(Completion {
                    token: op.token,
                    result: Err(error(&self.files[op.file].name, gone, op, "the power failed")),
                });
            }
            return done.append(&mut self.ended);
        }
        let op = self.in_flight.swap_remove(index);
        self.now_ns = self.now_ns.max(op.due_ns);
        self.trace.at(self.now_ns);
        self.completions += 1;
        let token = op.token;
        let completion = self.end(op);
        let ok = completion.result.is_ok();
        self.trace.note(&[2, token.0, u64::from(ok), self.now_ns], || {
            let end = if ok { "done" } else { "FAILED" };
            format!("disk: {end} token {:x} (completion {})", token.0, self.completions)
        });
        done.push(completion);
    }

    fn end(&mut self, mut op: InFlight) -> Completion {
        let faults = self.faults();
        let rate = match op.kind {
            Kind::Read(_) => faults.read_errors,
            Kind::Write { .. } => faults.write_errors,
            Kind::Sync { .. } => faults.sync_errors,
            Kind::Allocate(_) => faults.allocate_errors,
            Kind::Discard(_) => 0,
        };
        if self.rng.per_million(rate) {
            return self.end_with_fault(op);
        }
        if let Some(missing) = self.beyond_the_end(&op) {
            return missing;
        }
        let result = match &mut op.kind {
            Kind::Read(_) => {
                self.fill(&mut op);
                let Kind::Read(buf) = op.kind else { unreachable!("matched above") };
                OpResult::Read(buf)
            }
            Kind::Write { .. } => {
                let Kind::Write { change, bufs, durable } = op.kind else {
                    unreachable!("matched above")
                };
                if !self.strays(op.file, &change, durable) {
                    self.carry_out(op.file, change, durable);
                }
                OpResult::Written(bufs)
            }
            Kind::Sync { covers } => {
                let covers = *covers;
                self.files[op.file].sync(covers);
                OpResult::Done
            }
            Kind::Allocate(change) | Kind::Discard(change) => {
                let change = change.clone();
                self.carry_out(op.file, change, false);
                OpResult::Done
            }
        };
        Completion { token: op.token, result: Ok(result) }
    }

    /// A failed write may have been carried out in any part; after a failed sync
    /// nothing says which of the writes that it covered are durable.
    fn end_with_fault(&mut self, op: InFlight) -> Completion {
        self.counts.io_errors += 1;
        match &op.kind {
            Kind::Write { change, .. } => {
                let mut change = change.clone();
                for page in &mut change.pages {
                    if self.rng.percent(50) {
                        *page = PageChange::Nothing;
                    }
                }
                self.carry_out(op.file, change, false);
            }
            Kind::Sync { .. } => {
                for change in &mut self.files[op.file].volatile {
                    change.doomed = true;
                }
            }
            Kind::Allocate(_) => {
                self.counts.no_space += 1;
                let mut completion = failed(&self.files, op, "injected ENOSPC");
                if let Err(error) = &mut completion.result {
                    error.kind = DiskErrorKind::NoSpace;
                }
                return completion;
            }
            Kind::Read(_) | Kind::Discard(_) => {}
        }
        failed(&self.files, op, "injected EIO")
    }

    fn beyond_the_end(&mut self, op: &InFlight) -> Option<Completion> {
        let change = op.kind.change()?;
        let name = &self.files[op.file].name;
        if self.options.device {
            if op.offset + op.len <= self.options.capacity_bytes {
                return None;
            }
            let error = error(name, op.kind.name(), op, "beyond the end of the device");
            return Some(Completion { token: op.token, result: Err(error) });
        }
        let live = &self.files[op.file].live;
        let needs = |(index, page): (usize, &PageChange)| {
            matches!(page, PageChange::Write(_) | PageChange::Allocate)
                && !live.is_allocated(change.first + index as u64)
        };
        let missing = change.pages.iter().enumerate().filter(|page| needs(*page)).count() as u64;
        let wanted = self.allocated_bytes() + missing * PAGE_BYTES as u64;
        let full = self.faults().full;
        if missing == 0 || (wanted + self.taken_bytes <= self.options.capacity_bytes && !full) {
            return None;
        }
        let mut error = error(name, op.kind.name(), op, "no space left");
        error.kind = DiskErrorKind::NoSpace;
        self.counts.no_space += 1;
        Some(Completion { token: op.token, result: Err(error) })
    }

    /// Carries a change out on the live image, and on the durable one if it is durable.
    pub(super) fn carry_out(&mut self, file: usize, mut change: Change, durable: bool) {
        let file = &mut self.files[file];
        change.apply_all(&mut file.live);
        change.completed_at = self.completions;
        match durable {
            true => file.make_durable(&change),
            false => file.volatile.push(change),
        }
    }

    /// Fills a read from the live image, after any sectors of the writes in
    /// flight beside it have reached that.
    fn fill(&mut self, op: &mut InFlight) {
        let first = op.offset / PAGE_BYTES as u64;
        let end = first + op.len / PAGE_BYTES as u64;
        let file = &mut self.files[op.file];
        for other in &mut self.in_flight {
            let Kind::Write { change, .. } = &mut other.kind else { continue };
            if other.file == op.file && change.overlaps(first, end) {
                let rng = &mut self.rng;
                change.apply(&mut file.live, |_| rng.percent(50));
                change.seen = true;
            }
        }
        let Kind::Read(buf) = &mut op.kind else { unreachable!("only reads are filled") };
        for (index, into) in buf.chunks_mut(PAGE_BYTES).enumerate() {
            match file.live.page(first + index as u64) {
                Some(page) => into.copy_from_slice(&page[..]),
                None => into.fill(0),
            }
        }
    }
}

/// What stays in flight of an operation that the power failed under, and its name.
fn split(kind: Kind) -> (Kind, &'static str) {
    let name = kind.name();
    match kind {
        Kind::Write { change, durable, .. } => {
            (Kind::Write { change, bufs: Vec::new(), durable }, name)
        }
        Kind::Read(_) => (Kind::Sync { covers: 0 }, name),
        kind => (kind, name),
    }
}

fn error(file: &str, op: &'static str, at: &InFlight, message: &str) -> DiskError {
    DiskError {
        op,
        file: file.to_owned(),
        offset: at.offset,
        len: at.len,
        kind: DiskErrorKind::Io,
        message: message.to_owned(),
    }
}

pub(super) fn failed(files: &[SimFile], op: InFlight, message: &str) -> Completion {
    let error = error(&files[op.file].name, op.kind.name(), &op, message);
    Completion { token: op.token, result: Err(error) }
}
