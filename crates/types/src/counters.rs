//! The counters that order a volume's history.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The raw value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this.
            ///
            /// # Panics
            /// On overflow, which no real history reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The one before this, or `None` at zero.
            #[must_use]
            pub const fn prev(self) -> Option<Self> {
                match self.0 {
                    0 => None,
                    n => Some(Self(n - 1)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The engine's right to write a volume; granted by the metadata group, ever growing.
    Epoch
}
counter! {
    /// Log sequence number: a volume's records are numbered 1, 2, 3 … without gaps.
    /// Zero stands before the first record.
    Lsn
}
counter! {
    /// Counts the changes of a volume's replica set.
    Generation
}

/// One entry of an epoch history: the first LSN that was written under `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochSpan {
    /// The epoch.
    pub epoch: Epoch,
    /// LSN of its first record.
    pub first: Lsn,
}
