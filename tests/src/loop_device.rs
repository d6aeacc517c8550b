//! Loop devices: raw block devices for tests, where the machine allows them.

use crate::{Result, command, tools};
use std::path::{Path, PathBuf};

/// A loop device, detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    device: PathBuf,
}

impl LoopDevice {
    /// A device of `bytes` over a new sparse file at `file`.
    ///
    /// # Errors
    /// Without root, or in a container without loop devices.
    pub fn new(file: &Path, bytes: u64) -> Result<LoopDevice> {
        tools::succeed(&mut command!("truncate", "--size", bytes.to_string(), file))?;
        let device = tools::succeed(&mut command!("losetup", "--find", "--show", file))?;
        Ok(LoopDevice { device: device.trim().into() })
    }

    /// Its node in `/dev`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = tools::succeed(&mut command!("losetup", "--detach", &self.device)) {
            eprintln!("{error}");
        }
    }
}
