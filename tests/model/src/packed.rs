//! States as a few numbers, for hashing: most of the checker's time would go into hashing
//! small fields one by one.

use crate::state::{Engine, Lease, Replica, State, To, View};
use std::hash::{Hash, Hasher};

/// Takes small numbers, each of its width, side by side.
#[derive(Default)]
struct Packer {
    bits: u64,
    used: u32,
}

impl Packer {
    fn put(&mut self, value: u8, width: u32) {
        assert!(u32::from(value) < 1 << width, "{value} takes more than {width} bits");
        self.bits = self.bits << width | u64::from(value);
        self.used += width;
        assert!(self.used <= u64::BITS, "more than one number holds");
    }

    fn put_option(&mut self, value: Option<u8>, width: u32) {
        self.put(value.map_or(0, |value| value + 1), width);
    }
}

/// Widths in bits: what a bound allows, and more would be found by the assertion.
const LSN: u32 = 4;
const EPOCH: u32 = 3;
const TICKS: u32 = 2;

impl View {
    fn pack(&self, into: &mut Packer) {
        let Self { link, matched, current, next } = *self;
        into.put(link as u8, 3);
        into.put(matched, LSN);
        into.put(u8::from(current), 1);
        into.put(u8::from(next), 1);
    }
}

impl Lease {
    fn pack(&self, into: &mut Packer) {
        let Self { held, granted, debt, fenced, grant } = *self;
        into.put(held, TICKS);
        into.put(granted, TICKS);
        into.put(debt, TICKS);
        into.put(u8::from(fenced), 1);
        into.put_option(grant.map(|(age, listed)| age << 1 | u8::from(listed)), 4);
    }
}

impl Hash for Replica {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { home, member, log, durable, applied, .. } = self;
        let Self { promised, promised_on_disk, owes_all, health, heard, leases, views, .. } = self;
        let mut own = Packer::default();
        own.put_option(*home, 2);
        own.put(u8::from(*member), 1);
        own.put(*durable, LSN);
        own.put(*applied, LSN);
        own.put(*promised, EPOCH);
        own.put(*promised_on_disk, EPOCH);
        own.put(
            match self.to {
                To::Nobody => 0,
                To::Unknown => 1,
                To::Node(node) => node + 2,
            },
            2,
        );
        own.put(*owes_all, TICKS);
        own.put(*health as u8, 2);
        own.put(*heard, EPOCH);
        leases.iter().for_each(|lease| lease.pack(&mut own));
        let mut known = Packer::default();
        views.iter().for_each(|view| view.pack(&mut known));
        for number in [log.bits(), own.bits, known.bits] {
            to.write_u64(number);
        }
    }
}

impl Hash for Engine {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { phase, node, epoch, log, base, commit, .. } = self;
        let Self { wait, generation, change, fenced_at, .. } = self;
        let mut own = Packer::default();
        own.put(*phase as u8, 2);
        own.put(*node, 1);
        own.put(*epoch, EPOCH);
        own.put(*base, LSN);
        own.put(*commit, LSN);
        own.put(*wait, TICKS);
        own.put(*generation, 3);
        own.put(*change as u8, 2);
        own.put_option(*fenced_at, LSN);
        to.write_u64(log.bits());
        to.write_u64(own.bits);
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { replicas, engines, epoch, generation, granted, writes, .. } = self;
        let Self { crashes, damages, changes, committed, committed_by, seen, broken, .. } = self;
        replicas.iter().for_each(|replica| replica.hash(to));
        engines.iter().for_each(|engine| engine.hash(to));
        let mut own = Packer::default();
        for small in [epoch, generation, granted, crashes, damages, changes] {
            own.put(*small, 3);
        }
        own.put(*writes, LSN);
        own.put(*seen, LSN);
        own.put_option(broken.map(|invariant| invariant as u8), 4);
        for number in [committed.bits(), u64::from_le_bytes(*committed_by), own.bits] {
            to.write_u64(number);
        }
    }
}
