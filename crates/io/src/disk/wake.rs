//! How an executor sleeps until a disk has completions.
#![allow(unsafe_code)]

use super::Disk;
use std::{io, os::fd::OwnedFd};
use tokio::io::unix::AsyncFd;

/// A disk's [`wake_fd`](Disk::wake_fd) in the reactor of a tokio runtime. Holds
/// a duplicate of it, so it may outlive the disk.
#[derive(Debug)]
pub struct DiskWake {
    fd: AsyncFd<OwnedFd>,
}

impl DiskWake {
    /// For the current runtime, which must have its I/O driver enabled; `None`
    /// for a disk that has no descriptor.
    ///
    /// # Errors
    /// No file descriptors left, or the reactor refuses it.
    pub fn new(disk: &dyn Disk) -> io::Result<Option<Self>> {
        let Some(fd) = disk.wake_fd() else { return Ok(None) };
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: the descriptor is ours alone (a duplicate), an `OwnedFd` yields
        // the same one always and closes it only when the `AsyncFd` drops it,
        // after taking it out of the reactor.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Some(Self { fd }))
    }

    /// Waits until completions may have arrived since the last call. Poll the
    /// disk after it returns, not before: what completes later wakes again.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn woken(&self) -> io::Result<()> {
        self.fd.readable().await?.clear_ready();
        Ok(())
    }
}
