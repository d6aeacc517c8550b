//! Lives of a node: work until something ends it, recovery, the next life.

use super::{Stop, World, crash::Crash};
use crate::{
    counts::Counts,
    disk::Faults,
    invariants::Violation,
    plan::{Plan, Trim},
    rng::SimRng,
    trace::Trace,
};

/// Lives in a seed's run.
const LIVES: std::ops::Range<u64> = 4..9;
/// Turns of work in a life.
const TURNS: std::ops::Range<u64> = 1..1200;
/// Completions after the start of a life at which the power may fail early.
const EARLY_COMPLETIONS: std::ops::Range<u64> = 0..120;
/// Turns of work before the cuts of [`enumerate`] begin: some worlds are new, in
/// others the log has come round.
const WARM_UP_TURNS: std::ops::Range<u64> = 0..600;
/// Of so many turns with cuts, one asks for a round and its checkpoint.
const TURNS_PER_ROUND: u64 = 25;
/// Attempts to come up, each ended by a planned fault, before giving up.
const ATTEMPTS_MAX: u32 = 50;

/// What a seed's run is made of: lives of the node.
#[must_use]
pub fn plan(seed: u64, trim: &Trim) -> Plan {
    let lives = SimRng::of(seed, "lives").within(LIVES);
    Plan { steps: trim.steps_of(lives, "a life"), until: TURNS.end, ..Plan::default() }
}

/// Runs one seed, but for what `trim` leaves out.
pub fn run_seed(seed: u64, trim: &Trim, trace: Trace) -> (Counts, Result<(), Violation>) {
    let mut world = match World::new(seed, trace) {
        Ok(world) => world,
        Err(violation) => return (Counts::default(), Err(violation)),
    };
    world.turns_max = trim.until.unwrap_or(u64::MAX);
    let result = world.lives(seed, trim);
    (world.totals(), result)
}

impl World {
    fn totals(&mut self) -> Counts {
        let disk = self.disk.counts();
        self.counts.bit_flips = disk.bit_flips;
        self.counts.io_errors = disk.io_errors;
        self.counts.no_space = disk.no_space;
        self.counts.simulated_ms = self.now_ms;
        self.counts
    }

    fn lives(&mut self, seed: u64, trim: &Trim) -> Result<(), Violation> {
        for (number, _) in plan(seed, trim).steps {
            self.rng = SimRng::nth(seed, "life", number);
            if self.rng.percent(25) {
                self.disk.power_off_after(self.rng.within(EARLY_COMPLETIONS));
            }
            match self.life() {
                Ok(()) => {
                    let crash = match self.rng.percent(20) {
                        true => Crash::Kill,
                        false => Crash::PowerCut,
                    };
                    self.crash(crash);
                }
                Err(Stop::PowerLost) => self.crash(Crash::PowerCut),
                Err(Stop::DiskFailed) => self.crash(Crash::Kill),
                Err(Stop::Unreadable) => unreachable!("damage is taken back"),
                Err(Stop::Violation(violation)) => return Err(violation),
            }
        }
        self.rng = SimRng::of(seed, "last");
        self.come_up()?;
        self.quietly(Self::drain_and_check)?;
        self.quietly(Self::verify_all)
    }

    /// A stretch on a disk without faults or planned cuts.
    fn quietly(
        &mut self,
        stretch: impl Fn(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Violation> {
        match stretch(self) {
            Ok(()) => Ok(()),
            Err(Stop::Violation(violation)) => Err(violation),
            Err(stop) => unreachable!("{stop:?} without a cause"),
        }
    }

    /// Recovers, however often that is cut short.
    fn come_up(&mut self) -> Result<(), Violation> {
        for _ in 0..ATTEMPTS_MAX {
            match self.recover() {
                Ok(()) => break,
                Err(Stop::Violation(violation)) => return Err(violation),
                Err(Stop::PowerLost) => {
                    self.counts.cuts_in_recovery += 1;
                    self.crash(Crash::PowerCut);
                }
                Err(Stop::DiskFailed | Stop::Unreadable) => self.crash(Crash::Kill),
            }
        }
        self.quietly(Self::verify_all)
    }

    fn life(&mut self) -> Result<(), Stop> {
        if self.rng.percent(15) {
            self.inspect_crashed()?;
        }
        if self.rng.percent(8) {
            self.damage_log()?;
        }
        if self.rng.percent(8) {
            self.disk.set_faults(Faults { read_errors: 5_000, ..Faults::NONE });
        }
        if let Err(stop) = self.recover() {
            self.counts.cuts_in_recovery += u64::from(matches!(stop, Stop::PowerLost));
            return Err(stop);
        }
        self.disk.set_faults(Faults::NONE);
        if self.rng.percent(70) {
            self.verify_all()?;
        }
        if self.rng.percent(30) {
            self.drain_and_check()?;
            match self.rng.within(0..10) {
                0..3 => self.damage_data()?,
                3 => self.damage_superblock()?,
                _ => self.verify_all()?,
            }
        }
        if self.rng.percent(15) {
            let faults = self.draw_faults();
            self.disk.set_faults(faults);
        }
        self.work(TURNS)?;
        self.disk.set_faults(Faults::NONE);
        if self.rng.percent(20) {
            self.drain_and_check()?;
        }
        Ok(())
    }

    fn draw_faults(&mut self) -> Faults {
        match self.rng.within(0..4) {
            0 => Faults { read_errors: 10_000, ..Faults::NONE },
            1 => Faults { write_errors: 3_000, ..Faults::NONE },
            2 => Faults { sync_errors: 100_000, ..Faults::NONE },
            _ => Faults { allocate_errors: 300_000, ..Faults::NONE },
        }
    }

    fn work(&mut self, turns: std::ops::Range<u64>) -> Result<(), Stop> {
        let eager = self.rng.within(20..95) as u32;
        for _ in 0..self.rng.within(turns).min(self.turns_max) {
            while self.rng.percent(eager) {
                self.act()?;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// What is left of this world after a power cut at this very moment; the
    /// world itself goes on.
    fn fork(&self, seed: u64) -> Self {
        let in_checkpoint = self.node.as_ref().is_some_and(|node| node.observer.in_checkpoint());
        let disk = self.disk.power_cut(seed);
        let fate = disk.counts();
        let counts = Counts {
            cuts: 1,
            cuts_in_checkpoint: u64::from(in_checkpoint),
            changes_kept: fate.kept,
            changes_lost: fate.lost,
            changes_torn: fate.torn,
            ..Counts::default()
        };
        Self {
            shape: self.shape.clone(),
            disk,
            model: self.model.clone(),
            rng: SimRng::of(seed, "fork"),
            trace: self.trace.clone(),
            pool: self.pool.clone(),
            node: None,
            now_ms: self.now_ms,
            turns_max: self.turns_max,
            damaged: false,
            counts,
        }
    }

    /// After a cut: recovers, perhaps through a second cut, and checks everything.
    fn after_cut(&mut self, second: bool) -> Result<(), Violation> {
        if self.rng.percent(25) {
            self.quietly(Self::inspect_crashed)?;
        }
        if second {
            self.disk.power_off_after(self.rng.within(EARLY_COMPLETIONS));
        }
        let first_life = self
            .recover()
            .and_then(|()| self.verify_all())
            .and_then(|()| self.drain_and_check())
            .and_then(|()| self.verify_all());
        match first_life {
            Ok(()) => return Ok(()),
            Err(Stop::Violation(violation)) => return Err(violation),
            Err(Stop::DiskFailed | Stop::Unreadable) => unreachable!("no fault was injected"),
            Err(Stop::PowerLost) => {
                self.counts.cuts_in_recovery += 1;
                self.crash(Crash::PowerCut);
            }
        }
        self.come_up()?;
        self.quietly(Self::drain_and_check)?;
        self.quietly(Self::verify_all)
    }
}

/// Runs a workload of `turns` turns, and after each of them, that is, after
/// every operation that the disk ends, cuts the power in `tears` ways, once in a
/// few also during the recovery, and checks what is left each time.
pub fn enumerate(
    seed: u64,
    (turns, tears): (u64, u64),
    trim: &Trim,
    trace: Trace,
) -> (Counts, Result<(), Violation>) {
    let mut world = match World::new(seed, trace) {
        Ok(world) => world,
        Err(violation) => return (Counts::default(), Err(violation)),
    };
    let result = world.enumerate(trim.turns(turns), tears, trim);
    (world.totals(), result)
}

impl World {
    fn enumerate(&mut self, turns: u64, tears: u64, trim: &Trim) -> Result<(), Violation> {
        self.come_up()?;
        self.quietly(|world| world.work(WARM_UP_TURNS))?;
        for turn in 0..turns {
            if turn % TURNS_PER_ROUND == 0 {
                self.node().host.drain();
            }
            while self.rng.percent(70) {
                self.quietly_act()?;
            }
            self.quietly(|world| world.turn().map(|_| ()))?;
            for tear in (0..tears).filter(|tear| trim.keeps((turn * tears + tear) as usize)) {
                let mut fork = self.fork(turn << 8 | tear);
                let result = fork.after_cut((turn + tear).is_multiple_of(3));
                self.counts.add(&fork.counts);
                result.map_err(|violation| Violation {
                    what: format!("cut at turn {turn}, tear {tear}: {}", violation.what),
                    ..violation
                })?;
            }
        }
        Ok(())
    }

    fn quietly_act(&mut self) -> Result<(), Violation> {
        self.quietly(Self::act)
    }
}
