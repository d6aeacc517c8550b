//! Volume names: DNS labels, so that a Kubernetes object can carry one.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name, in bytes (RFC 1123 §2.1: a DNS label).
const NAME_BYTES_MAX: usize = 63;

/// A volume's name: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// A name that no volume can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no volume name: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit"
)]
pub struct BadName(String);

impl VolumeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = BadName;

    fn from_str(s: &str) -> Result<Self, BadName> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = s.len() <= NAME_BYTES_MAX
            && s.bytes().next().is_some_and(plain)
            && s.bytes().all(|c| plain(c) || c == b'-');
        if good { Ok(Self(s.to_owned())) } else { Err(BadName(s.to_owned())) }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = BadName;

    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_pass() {
        let long = "a".repeat(63);
        for good in ["a", "0", "demo", "pg-data-0", long.as_str()] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", "Demo", "a_b", "a b", "ä", too_long.as_str()] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }
}
