//! All targets, one module each.

mod api;
mod catalogue;
mod nbd;
mod store;
mod wal;
mod wire;

use crate::Target;

/// Every target.
pub static TARGETS: [Target; 6] =
    [wire::TARGET, wal::TARGET, store::TARGET, catalogue::TARGET, api::TARGET, nbd::TARGET];

/// The target of this name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn by_name(name: &str) -> &'static Target {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { panic!("there is no target {name}") };
    target
}
