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
///   kind, from 1) or `1/N` (each with that chance);
/// - `delay=N`: completions are handed on late and out of order, each held back
///   for fewer than N polls;
/// - `seed=N`: of the chances (default 0).
///
/// For example `withhold,delay=8,eio-write=1/1000,seed=7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// Keep unflushed writes in memory.
    pub withhold: bool,
    /// Operations that fail.
    pub failures: Vec<Failure>,
    /// Completions are held back for fewer than so many polls; 0: never.
    pub delay_polls: u64,
    /// Seed of all chances.
    pub seed: u64,
}

/// One rule of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What fails.
    pub kind: OpKind,
    /// When.
    pub when: When,
    /// ENOSPC instead of EIO.
    pub no_space: bool,
}

/// Which of the operations of a kind fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The nth, from 1.
    Nth(u64),
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
    "{0:?} is no disk fault; there are withhold, eio-OP=WHEN, enospc-OP=WHEN, delay=N and seed=N \
     (OP: read, write, sync, allocate, discard; WHEN: N or 1/N, from 1), separated by commas"
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
            _ => {
                let (error, op) = name.split_once('-')?;
                let no_space = match error {
                    "eio" => false,
                    "enospc" => true,
                    _ => return None,
                };
                let kind = *OpKind::ALL.iter().find(|kind| kind.name() == op)?;
                let when = match value.strip_prefix("1/") {
                    Some(chance) => When::OneIn(chance.parse().ok()?),
                    None => When::Nth(value.parse().ok()?),
                };
                if matches!(when, When::Nth(0) | When::OneIn(0)) {
                    return None;
                }
                self.failures.push(Failure { kind, when, no_space });
            }
        }
        Some(())
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
        for Failure { kind, when, no_space } in &self.failures {
            let error = if *no_space { "enospc" } else { "eio" };
            match when {
                When::Nth(n) => write!(f, ",{error}-{}={n}", kind.name())?,
                When::OneIn(n) => write!(f, ",{error}-{}=1/{n}", kind.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_read_and_written() {
        let text = "seed=7,withhold,delay=8,eio-write=1/1000,enospc-allocate=3";
        let config = FaultConfig::parse(text).unwrap();
        assert_eq!(config.to_string(), text);
        assert_eq!(config.failures[1].when, When::Nth(3));
        assert!(config.failures[1].no_space && !config.failures[0].no_space);
        assert!(FaultConfig::parse("withhold").unwrap().withhold);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for wrong in
            ["", "withold", "eio-write", "eio-write=0", "eio-burn=1", "eio-write=1/0", "delay=-1"]
        {
            let error = FaultConfig::parse(&format!("seed=1,{wrong}")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{wrong:?}")), "{error}");
        }
    }
}
