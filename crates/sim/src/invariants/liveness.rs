//! Once nothing goes wrong any more, every volume is served, every set is whole, and
//! every client is answered, within a bound.

use super::{Invariant::Liveness, Violation};

/// What is still missing when the time is up.
#[must_use]
pub fn overdue(what: &str) -> Violation {
    Violation { invariant: Liveness, what: format!("nothing goes wrong any more, and yet: {what}") }
}

/// A request failed although nothing has happened that it may fail of.
#[must_use]
pub fn refused(what: &str, calm: bool) -> Violation {
    let when = if calm { "when nothing goes wrong any more" } else { "with no reason" };
    Violation { invariant: Liveness, what: format!("{when}, {what}") }
}
