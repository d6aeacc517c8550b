//! Small file systems of their own for disks, which can be filled up and get room again.
//!
//! An ext4 in a file, mounted through a loop device; a ballast file in it takes the space
//! that others would take. Needs root and a machine that allows loop mounts.

use crate::{Error, Result, command, tools};
use rustix::fs::{FallocateFlags, fallocate, ftruncate, statvfs};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that unmounting is tried: the kernel may still be ending writes of a killed process.
const UNMOUNT_TRIES: u32 = 100;
/// Between them.
const UNMOUNT_AGAIN: Duration = Duration::from_millis(50);

/// A mounted file system, unmounted when dropped; its image stays.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
    ballast: File,
    /// Bytes that it has for the ballast and the disk.
    room: u64,
    /// Length of the ballast that [`SmallDisk::set_ballast`] gave last, bytes.
    base: u64,
}

impl SmallDisk {
    /// One of `bytes`, in `DIR/NAME.ext4`, mounted on `DIR/NAME`.
    ///
    /// # Errors
    /// Without root, or in a container without loop devices.
    pub fn new(dir: &Path, name: &str, bytes: u64) -> Result<SmallDisk> {
        let image = dir.join(format!("{name}.ext4"));
        let mount = dir.join(name);
        std::fs::create_dir(&mount).map_err(Error::io("make a mount point"))?;
        tools::succeed(&mut command!("truncate", "--size", bytes.to_string(), &image))?;
        tools::succeed(&mut command!("mkfs.ext4", "-q", "-m", "0", &image))?;
        tools::succeed(&mut command!("mount", "-o", "loop", &image, &mount))?;
        let path = mount.join("ballast");
        let ballast = OpenOptions::new().create_new(true).write(true).open(&path);
        let ballast = ballast.map_err(Error::io("make a ballast"));
        match ballast.and_then(|ballast| Ok((ballast, free(&mount)?))) {
            Ok((ballast, room)) => Ok(SmallDisk { mount, ballast, room, base: 0 }),
            Err(error) => {
                unmount(&mount)?;
                Err(error)
            }
        }
    }

    /// Where a disk's directory can be made: beside the ballast.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.mount.join("disk")
    }

    /// Bytes that it has for the ballast and the disk together.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// The ballast takes so many bytes from now on; whatever it took beyond that is free again.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn set_ballast(&mut self, bytes: u64) -> Result<()> {
        self.base = bytes;
        self.resize(bytes)
    }

    /// The ballast takes all that is free but for `leave` bytes.
    ///
    /// # Errors
    /// When the file system refuses. That others were faster is none.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let len = self.ballast.metadata().map_err(Error::io("look at the ballast"))?.len();
        let more = free(&self.mount)?.saturating_sub(leave);
        match self.resize(len + more) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                Ok(())
            }
            other => other,
        }
    }

    /// What [`SmallDisk::fill`] took is free again.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn relieve(&self) -> Result<()> {
        self.resize(self.base)
    }

    /// Sets the ballast's length, with space for all of it.
    fn resize(&self, bytes: u64) -> Result<()> {
        let failed = |error: rustix::io::Errno| Error::io("set the ballast")(error.into());
        if bytes > 0 {
            fallocate(&self.ballast, FallocateFlags::empty(), 0, bytes).map_err(failed)?;
        }
        ftruncate(&self.ballast, bytes).map_err(failed)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The ballast is open in it.
        if let Ok(null) = File::open("/dev/null") {
            self.ballast = null;
        }
        if let Err(error) = unmount(&self.mount) {
            eprintln!("{error}");
        }
    }
}

/// Bytes that are free.
fn free(mount: &Path) -> Result<u64> {
    let stat = statvfs(mount).map_err(|error| Error::io("ask for space")(error.into()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

fn unmount(mount: &Path) -> Result<()> {
    let mut tried = tools::succeed(&mut command!("umount", mount));
    for _ in 1..UNMOUNT_TRIES {
        if tried.is_ok() {
            break;
        }
        std::thread::sleep(UNMOUNT_AGAIN);
        tried = tools::succeed(&mut command!("umount", mount));
    }
    tried.map(drop)
}
