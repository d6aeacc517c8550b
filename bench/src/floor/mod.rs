//! The floor: what a replicated durable write and a local read cost in system calls alone.
//!
//! Three processes move the same bytes over the same sockets and disks as a volume with three
//! replicas, with no logic at all between them: no checksums, no index, no apply, no failures.
//! What they reach is the limit for any design of this shape on a machine.
//!
//! ```text
//! client ──NBD, unix──▶ primary ──▶ log (O_DIRECT, RWF_DSYNC, io_uring)
//!                          │ └─TCP─▶ follower ──▶ log
//!                          └───TCP─▶ follower ──▶ log          reply at 2 of 3
//! ```
//!
//! - [`run_node`]: one process; `primary`, `follower`: what it does with what comes;
//! - `drive`: turns of a node, over epoll and one io_uring for the disk, as the product's;
//! - `log`: frames in a ring; `inbox`, `outbox`, `link`: sockets.
//!
//! It is also the cheap place to try an idea about transport before the product is changed:
//! [`Variant`].

mod drive;
mod follower;
mod inbox;
mod link;
mod log;
mod node;
mod outbox;
mod primary;
mod start;

pub use node::{NodeArgs, run_node};
pub use start::{Floor, Variant, start};
