//! The rounds: every job on every server in turn, in an order that alternates.

use crate::blocks::{Group, divide};
use crate::figures::fio::Length;
use crate::figures::{measure, median};
use crate::install::PERF;
use crate::job::fill;
use crate::machine::describe;
use crate::outcome::{Block, Column, Figures, Job, JobOutcome, JobResult, Machine, Outcome, Plan};
use crate::subject::{Kind, Layout, Subject};
use holdfast_tests::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Seconds of the runs that count system calls and time nothing.
const COUNT_S: f64 = 2.0;
/// Volumes are whole multiples of this.
const VOLUME_STEP_BYTES: u64 = 4 << 20;

/// When system calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscalls {
    /// In a short run behind the rounds, so that counting costs the other figures nothing.
    Apart,
    /// In the rounds.
    Meanwhile,
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct Choice {
    /// How long, on how much.
    pub plan: Plan,
    /// Who.
    pub kinds: Vec<Kind>,
    /// With what.
    pub jobs: Vec<Job>,
    /// When system calls are counted.
    pub syscalls: Syscalls,
    /// Whether to install what is missing.
    pub install: bool,
}

/// Compares with data below `dir`, which has to be empty and is empty afterwards, and tells
/// `progress` of every step.
///
/// A server that fails does not end it: the outcome says so.
///
/// # Errors
/// When there is too little room, or files cannot be made or removed.
pub fn compare(dir: &Path, choice: &Choice, progress: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let area_bytes = choice.plan.area_bytes;
    let mut absent = Vec::new();
    let mut present = Vec::new();
    if let Err(reason) = PERF.ensure(choice.install, progress) {
        progress(&format!("system calls will not be counted: {reason}"));
    }
    for kind in &choice.kinds {
        let mut needs = kind.needs().iter();
        match needs.try_for_each(|needs| needs.ensure(choice.install, progress)) {
            Ok(()) => present.push(*kind),
            Err(reason) => absent.push(Column { absent: Some(reason), ..kind.column() }),
        }
    }
    let free =
        rustix::fs::statvfs(dir).map_err(|error| Error::io("look for room")(error.into()))?;
    let groups = divide(&present, area_bytes, free.f_bavail * free.f_frsize);
    let groups = groups.map_err(Error::Tool)?;
    let machine = describe(dir)?;
    let mut blocks = Vec::new();
    for group in groups {
        blocks.push(Run { dir, choice, machine: &machine, progress }.block(group)?);
    }
    match blocks.first_mut() {
        Some(block) => block.columns.extend(absent),
        None => return Err(Error::Tool("nobody is there to be measured".to_owned())),
    }
    Ok(Outcome { machine, plan: choice.plan.clone(), blocks, scale: None })
}

struct Run<'a> {
    dir: &'a Path,
    choice: &'a Choice,
    machine: &'a Machine,
    progress: &'a mut dyn FnMut(&str),
}

/// What became of one server so far: for each job, in the order of the jobs.
struct Entry {
    kind: Kind,
    column: Column,
    results: Vec<JobResult>,
    syscalls: Vec<Option<f64>>,
}

impl Entry {
    fn new(kind: Kind, jobs: &[Job], machine: &Machine) -> Entry {
        let column = Column { version: kind.version(machine), ..kind.column() };
        let result = JobResult {
            column: column.id.clone(),
            median: None,
            samples: Vec::new(),
            failed: None,
        };
        let results = vec![result; jobs.len()];
        Entry { kind, column, results, syscalls: vec![None; jobs.len()] }
    }

    fn fail(&mut self, job: usize, error: &Error) {
        self.results[job].failed.get_or_insert_with(|| error.to_string());
    }

    /// Takes the medians; one that has none at all was not there.
    fn close(&mut self) {
        for (result, syscalls) in self.results.iter_mut().zip(&self.syscalls) {
            result.median = median(&result.samples);
            if let Some(median) = &mut result.median {
                median.syscalls_per_op = median.syscalls_per_op.or(*syscalls);
            }
        }
        if self.results.iter().all(|result| result.median.is_none()) {
            self.column.absent = self.results.iter().find_map(|result| result.failed.clone());
        }
    }
}

impl Run<'_> {
    fn block(&mut self, group: Group) -> Result<Block> {
        let jobs = &self.choice.jobs;
        let mut entries: Vec<Entry> =
            group.kinds.iter().map(|kind| Entry::new(*kind, jobs, self.machine)).collect();
        if group.interleaved {
            self.all_jobs(&mut entries)?;
        } else {
            for entry in &mut entries {
                self.all_jobs(std::slice::from_mut(entry))?;
            }
        }
        entries.iter_mut().for_each(Entry::close);
        let outcome = |(index, job): (usize, &Job)| {
            let there = entries.iter().filter(|entry| entry.column.absent.is_none());
            let results = there.map(|entry| entry.results[index].clone()).collect();
            JobOutcome { job: job.clone(), results }
        };
        let jobs = jobs.iter().enumerate().map(outcome).collect();
        let columns = entries.into_iter().map(|entry| entry.column).collect();
        Ok(Block { title: group.title, interleaved: group.interleaved, columns, jobs })
    }

    /// The jobs on one volume, then those on many, each on storage that is made for them.
    fn all_jobs(&mut self, entries: &mut [Entry]) -> Result<()> {
        let mut volumes: Vec<u32> = self.choice.jobs.iter().map(|job| job.volumes).collect();
        volumes.sort_unstable();
        volumes.dedup();
        volumes.into_iter().try_for_each(|volumes| self.stage(entries, volumes))
    }

    /// All jobs on so many volumes, on servers that are started for them.
    fn stage(&mut self, entries: &mut [Entry], volumes: u32) -> Result<()> {
        let jobs = self.choice.jobs.iter().enumerate();
        let jobs: Vec<(usize, &Job)> = jobs.filter(|(_, job)| job.volumes == volumes).collect();
        let step = VOLUME_STEP_BYTES;
        let volume_bytes = self.choice.plan.area_bytes / u64::from(volumes) / step * step;
        let mut running: Vec<(&mut Entry, Box<dyn Subject>)> = Vec::new();
        for entry in entries {
            match self.start(entry.kind, volumes, volume_bytes) {
                Ok(subject) => running.push((entry, subject)),
                Err(error) => {
                    (self.progress)(&format!("{}: {error}", entry.kind.id()));
                    jobs.iter().for_each(|(index, _)| entry.fail(*index, &error));
                }
            }
        }
        for round in 0..self.choice.plan.rounds {
            for (index, job) in &jobs {
                // Who goes first alternates.
                let turns = running.iter_mut();
                let turns: Vec<_> =
                    if round % 2 == 0 { turns.collect() } else { turns.rev().collect() };
                for (entry, subject) in turns {
                    let length = self.length(job);
                    let counts = self.choice.syscalls == Syscalls::Meanwhile;
                    let heading = format!("round {}: {}", round + 1, job.title);
                    match measure(&**subject, job, volume_bytes, length, counts) {
                        Ok((figures, why_not)) => {
                            self.tell(&heading, entry.kind, &figures);
                            entry.results[*index].samples.push(figures);
                            entry.column.no_syscalls = why_not;
                        }
                        Err(error) => {
                            (self.progress)(&format!("{heading} {}: {error}", entry.kind.id()));
                            entry.fail(*index, &error);
                        }
                    }
                }
            }
        }
        if self.choice.syscalls == Syscalls::Apart {
            (self.progress)("counting system calls");
            let length = Length::seconds(COUNT_S.min(self.choice.plan.seconds));
            for (index, job) in &jobs {
                for (entry, subject) in &mut running {
                    if entry.column.no_syscalls.is_some() {
                        continue;
                    }
                    match measure(&**subject, job, volume_bytes, length, true) {
                        Ok((figures, why_not)) => {
                            entry.syscalls[*index] = figures.syscalls_per_op;
                            entry.column.no_syscalls = why_not;
                        }
                        Err(error) => entry.column.no_syscalls = Some(error.to_string()),
                    }
                }
            }
        }
        for (entry, subject) in running {
            drop(subject);
            remove(&self.dir_of(entry.kind))?;
        }
        Ok(())
    }

    fn dir_of(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.dir())
    }

    /// Starts it and writes all of its volumes once.
    fn start(&mut self, kind: Kind, volumes: u32, volume_bytes: u64) -> Result<Box<dyn Subject>> {
        let dir = self.dir_of(kind);
        (self.progress)(&format!("{}: {volumes} of {} MiB", kind.id(), volume_bytes >> 20));
        fs::create_dir_all(&dir).map_err(Error::io("make a directory for a server"))?;
        let holdfast_args = self.choice.plan.holdfast_args.clone();
        let subject = kind.start(&Layout { dir, volumes, volume_bytes, holdfast_args })?;
        measure(&*subject, &fill(volumes), volume_bytes, Length::Once, false)?;
        Ok(subject)
    }

    fn length(&self, job: &Job) -> Length {
        let plan = &self.choice.plan;
        match if job.writes() { plan.logged_bytes } else { 0 } {
            0 => Length::seconds(plan.seconds),
            written_bytes => Length::Until {
                seconds: plan.seconds,
                written_bytes,
                seconds_max: plan.seconds_max.max(plan.seconds),
            },
        }
    }

    fn tell(&mut self, heading: &str, kind: Kind, figures: &Figures) {
        (self.progress)(&format!(
            "{heading:<48} {:<12} {:>8.0} IOPS {:>8.1} MB/s in {:>5.1} s",
            kind.id(),
            figures.iops,
            figures.megabytes_per_s,
            figures.seconds
        ));
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
