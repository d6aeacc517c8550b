//! The core's tests: exact commands for given events, and random runs against
//! model replicas.

mod attach;
mod overlap;

mod rig;
mod serve;
mod space;
