//! The core's tests: exact commands for given events, and random runs against
//! model replicas.

mod attach;
mod catchup;
mod history;
mod lease;
mod members;
mod model;
mod network;
mod overlap;
mod random;
mod rig;
mod serve;
mod sets;
mod space;
mod world;
