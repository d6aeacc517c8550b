//! The seams to the outside: disks, sockets, time; and the aligned buffers that
//! travel through all of them without a copy.
//!
//! Whatever decides something (the WAL, the store, the engine) talks to a disk
//! only by pushing [`Op`]s into an [`IoQueue`] and being handed [`Completion`]s;
//! it never names a backend. The runtime carries the queue to a [`Disk`]: an
//! io_uring, a thread pool, a fault-injecting wrapper, or the simulator's.

pub mod buf;
pub mod clock;
#[cfg(feature = "counting")]
pub mod counting;
pub mod crashsafe;
pub mod dirlock;
pub mod disk;
pub mod fault;
pub mod net;

pub use buf::{ArenaId, Buf, BufMut, BufPool, PoolStats};
pub use clock::{BootClock, Clock, ManualClock};
pub use dirlock::DirLock;
pub use disk::{
    BackendChoice, Completion, Disk, DiskError, DiskErrorKind, DiskWake, FileId, IoQueue, Op,
    OpResult, OpenMode, Token, open_disk,
};
pub use fault::{FAULTS_ENV, FaultConfig, FaultDisk};
