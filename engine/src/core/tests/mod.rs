//! The core's tests: exact commands for given events, and random runs against
//! model replicas.

mod attach;
mod history;
mod model;
mod overlap;
mod random;
mod rig;
mod serve;
mod space;
mod world;
