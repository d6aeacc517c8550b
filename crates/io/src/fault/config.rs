//! What goes wrong, as a user of the tests writes it.

use std::{fmt, str::FromStr};

/// Environment variable that gives a daemon under test its faults.
pub const FAULTS_ENV: &str = "HOLDFAST_DISK_FAULTS";

/// The faults of a [`FaultDisk`](super::FaultDisk).
///
/// Written as a list with commas, of
/// - `withhold`: what is not flushed stays in memory, so that killing the
///   process loses exactly what a power cut may lose;
/// - `eio-OP=WHEN`, `enospc-OP=WHEN`: operations that fail, where OP is `read`,
///   `write`, `sync`, `allocate` or `discard`, and WHEN is `N` (the Nth of its
///   kind, from 1), `N..M` (from the Nth to before the Mth) or `1/N` (each with
///   that chance);
/// - `slow-OP=WHEN`: operations that take longer, by up to `hold=MS` milliseconds
///   (default 100);
/// - `delay=N`: completions are handed on late and out of order, each held back
///   for fewer than N polls;
/// - `seed=N`: of the chances (default 0).
///
/// For example `withhold,delay=8,eio-write=1/1000,seed=7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultConfig {
    /// Keep unflushed writes in memory.
    pub withhold: bool,
    /// Operations that fail or are slow.
    pub rules: Vec<Rule>,
    /// Longest that a slow operation takes longer.
    pub hold_ms: u64,
    /// Completions are held back for fewer than so many polls; 0: never.
    pub delay_polls: u64,
    /// Seed of all chances.
    pub seed: u64,
}

impl Default for FaultConfig {
    fn default() -> Self {
        let (withhold, rules) = (false, Vec::new());
        Self { withhold, rules, hold_ms: HOLD_MS_DEFAULT, delay_polls: 0, seed: 0 }
    }
}

/// Enough to be a slow disk's, short beside every time-out.
const HOLD_MS_DEFAULT: u64 = 100;

/// One rule of what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// To which operations it happens.
    pub kind: OpKind,
    /// When.
    pub when: When,
    /// What happens.
    pub fault: Fault,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO.
    Io,
    /// It fails with ENOSPC.
    NoSpace,
    /// It takes longer.
    Slow,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Io, Self::NoSpace, Self::Slow];

    fn name(self) -> &'static str {
        match self {
            Self::Io => "eio",
            Self::NoSpace => "enospc",
            Self::Slow => "slow",
        }
    }
}

/// To which of the operations of a kind it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The nth, from 1.
    Nth(u64),
    /// From the first number, from 1, to before the second.
    Between(u64, u64),
    /// Each with a chance of one in so many.
    OneIn(u64),
}

/// Kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// `read`
    Read,
    /// `write`, durable or not
    Write,
    /// `sync`
    Sync,
    /// `allocate`
    Allocate,
    /// `discard`
    Discard,
}

impl OpKind {
    pub(super) const ALL: [Self; 5] =
        [Self::Read, Self::Write, Self::Sync, Self::Allocate, Self::Discard];

    /// As in [`DiskError::op`](crate::DiskError::op).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Allocate => "allocate",
            Self::Discard => "discard",
        }
    }
}

/// A list of faults that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no disk fault; there are withhold, eio-OP=WHEN, enospc-OP=WHEN, slow-OP=WHEN, hold=MS, \
     delay=N and seed=N (OP: read, write, sync, allocate, discard; WHEN: N, N..M or 1/N, from 1), \
     separated by commas"
)]
pub struct FaultError(String);

impl FaultConfig {
    /// Reads the form described at [`FaultConfig`].
    ///
    /// # Errors
    /// Names the part that is wrong, and what there is.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let mut config = Self::default();
        for item in text.split(',').map(str::trim) {
            config.add(item).ok_or_else(|| FaultError(item.to_owned()))?;
        }
        Ok(config)
    }

    fn add(&mut self, item: &str) -> Option<()> {
        if item == "withhold" {
            self.withhold = true;
            return Some(());
        }
        let (name, value) = item.split_once('=')?;
        match name {
            "seed" => self.seed = value.parse().ok()?,
            "delay" => self.delay_polls = value.parse().ok()?,
            "hold" => self.hold_ms = value.parse().ok()?,
            _ => {
                let (fault, op) = name.split_once('-')?;
                let fault = *Fault::ALL.iter().find(|one| one.name() == fault)?;
                let kind = *OpKind::ALL.iter().find(|kind| kind.name() == op)?;
                self.rules.push(Rule { kind, when: When::parse(value)?, fault });
            }
        }
        Some(())
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        let when = if let Some(chance) = text.strip_prefix("1/") {
            Self::OneIn(chance.parse().ok()?)
        } else if let Some((first, end)) = text.split_once("..") {
            Self::Between(first.parse().ok()?, end.parse().ok()?)
        } else {
            Self::Nth(text.parse().ok()?)
        };
        let never = match when {
            Self::Nth(n) | Self::OneIn(n) => n == 0,
            Self::Between(first, end) => first == 0 || end <= first,
        };
        (!never).then_some(when)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nth(n) => write!(f, "{n}"),
            Self::Between(first, end) => write!(f, "{first}..{end}"),
            Self::OneIn(n) => write!(f, "1/{n}"),
        }
    }
}

impl FromStr for FaultConfig {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        Self::parse(text)
    }
}

impl fmt::Display for FaultConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        if self.withhold {
            f.write_str(",withhold")?;
        }
        if self.delay_polls > 0 {
            write!(f, ",delay={}", self.delay_polls)?;
        }
        if self.hold_ms != HOLD_MS_DEFAULT {
            write!(f, ",hold={}", self.hold_ms)?;
        }
        for Rule { kind, when, fault } in &self.rules {
            write!(f, ",{}-{}={when}", fault.name(), kind.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_read_and_written() {
        let text =
            "seed=7,withhold,delay=8,hold=40,eio-write=1/1000,enospc-allocate=3,slow-sync=5..9";
        let config = FaultConfig::parse(text).unwrap();
        assert_eq!(config.to_string(), text);
        assert_eq!(config.rules[1].when, When::Nth(3));
        assert_eq!(config.rules[2].when, When::Between(5, 9));
        let faults = config.rules.iter().map(|rule| rule.fault);
        assert!(faults.eq([Fault::Io, Fault::NoSpace, Fault::Slow]));
        assert!(FaultConfig::parse("withhold").unwrap().withhold);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for wrong in [
            "",
            "withold",
            "eio-write",
            "eio-write=0",
            "eio-burn=1",
            "eio-write=1/0",
            "delay=-1",
            "slow-sync=4..4",
        ] {
            let error = FaultConfig::parse(&format!("seed=1,{wrong}")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{wrong:?}")), "{error}");
        }
    }
}
