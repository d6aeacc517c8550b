//! How long to leave a peer alone that could not be reached.

use std::time::Duration;
use tokio::time::sleep;

/// After the first failure: a node that restarts is back in a second or two.
const FIRST: Duration = Duration::from_millis(100);
/// Never longer, so that a node that returns is found soon.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double up to a bound.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    pub(super) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
