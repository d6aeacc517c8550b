//! Benchmarks of Holdfast beside its peers.
//!
//! The same fio job runs against one server and then another, round after round,
//! so that whatever the machine does meanwhile happens to all of them. What comes
//! out is figures; nothing here says whether they are good.
//!
//! - [`job`]: what fio is asked, and what it answers;
//! - [`subject`]: the servers, each on storage of its own;
//! - [`compare`]: the rounds;
//! - [`install`]: programs that the bench runs and does not bring;
//! - [`outcome`]: all that a run found out, as JSON has it;
//! - [`table`]: medians and ratios for people.

pub mod compare;
pub mod install;
pub mod job;
pub mod outcome;
pub mod subject;
pub mod table;
