//! Which backend carries a disk's operations, chosen once when it is opened.

use super::{
    Disk,
    root::Root,
    threads::ThreadsDisk,
    uring::{RingError, UringDisk},
};
use crate::buf::BufPool;
use std::{fmt, io, path::Path, str::FromStr};

/// What a user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best that works: io_uring with registered buffers, io_uring without
    /// (where little memory may be locked), threads (where io_uring is refused).
    #[default]
    Auto,
    /// io_uring with registered buffers, or an error.
    Uring,
    /// io_uring without registered buffers, or an error.
    UringUnregistered,
    /// The thread pool.
    Threads,
}

impl BackendChoice {
    const NAMES: [(Self, &str); 4] = [
        (Self::Auto, "auto"),
        (Self::Uring, "io_uring"),
        (Self::UringUnregistered, "io_uring-unregistered"),
        (Self::Threads, "threads"),
    ];
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(choice, _)| choice == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == s);
        named.map(|(choice, _)| *choice).ok_or_else(|| {
            let names = Self::NAMES.map(|(_, name)| name).join(", ");
            format!("{s:?} is no disk backend; there are {names}")
        })
    }
}

/// Opens the directory or raw block device `root` with the backend chosen.
/// [`Disk::describe`] then says which it is and why. The arenas of `pools` are
/// registered where that can be done; buffers from elsewhere work all the same.
///
/// The disk belongs to the thread that opens it. A directory's owner holds a
/// [`DirLock`](crate::DirLock) on it; a device is opened exclusively here.
///
/// # Errors
/// The root is missing, neither directory nor device, may not be opened, or is
/// in use; or the backend asked for does not work here. The message names the
/// root and what to do.
pub fn open_disk(
    root: &Path,
    choice: BackendChoice,
    pools: &[BufPool],
) -> io::Result<Box<dyn Disk>> {
    let root = Root::open(root)?;
    let pools = (choice != BackendChoice::UringUnregistered).then_some(pools);
    if choice == BackendChoice::Threads {
        return Ok(Box::new(ThreadsDisk::open(root, "asked for".to_owned())?));
    }
    match UringDisk::open(root, pools) {
        Ok(disk) if choice == BackendChoice::Uring && !disk.is_registered() => {
            Err(io::Error::other(format!("registered buffers were asked for: {}", disk.describe())))
        }
        Ok(disk) => Ok(Box::new(disk)),
        Err((root, why)) if choice == BackendChoice::Auto => {
            Ok(Box::new(ThreadsDisk::open(root, why.to_string())?))
        }
        Err((_, RingError::Refused(why))) => {
            Err(io::Error::new(why.kind(), format!("io_uring was asked for and is refused: {why}")))
        }
        Err((_, why)) => Err(io::Error::new(io::ErrorKind::Unsupported, why.to_string())),
    }
}
