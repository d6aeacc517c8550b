//! The engine of a volume: ordering, quorum commit, versioned reads.
//!
//! [`core`] decides and does nothing else: events in, commands out, no clock, no
//! socket, no file. [`runtime`] carries its commands out on a shard: one thread
//! that owns disks, replicas, engines and the client connections of its volumes.

pub mod core;
pub mod lease;
pub mod runtime;
