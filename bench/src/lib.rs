//! Benchmarks of Holdfast beside its peers.
//!
//! The same fio job runs against one server and then another, round after round,
//! so that whatever the machine does meanwhile happens to all of them. What comes
//! out is figures; nothing here says whether they are good.
//!
//! - [`job`]: what fio is asked;
//! - [`subject`]: the servers, each on storage of its own;
//! - [`figures`]: one job on one server, measured; [`sampling`]: what its processes used;
//! - [`blocks`]: who finds room side by side; [`compare`]: the rounds;
//! - [`ceph`]: Ceph as one of them; [`floor`]: what system calls alone would take;
//! - [`scale`]: how cost grows with volumes;
//! - [`outcome`]: all that a run found out, as JSON has it;
//! - [`report`]: what people read of it;
//! - [`machine`], [`work_dir`]: where it runs;
//! - [`install`]: programs that the bench runs and does not bring.

pub mod blocks;
pub mod ceph;
pub mod compare;
pub mod figures;
pub mod floor;
pub mod install;
pub mod job;
pub mod machine;
pub mod outcome;
pub mod report;
pub mod sampling;
pub mod scale;
pub mod subject;
pub mod work_dir;
