//! The program of ours that does nothing but the system calls.

use super::{Layout, Subject, Volume};
use crate::floor::{self, Variant};
use crate::sampling::Process;
use holdfast_tests::{Error, Result};

/// Its three processes.
#[derive(Debug)]
pub struct Floor {
    floor: floor::Floor,
    volumes: Vec<Volume>,
}

impl Floor {
    /// Starts it, in the product's way.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start(layout: &Layout) -> Result<Floor> {
        let program = std::env::current_exe().map_err(Error::io("find this program"))?;
        let (bytes, volumes) = (layout.volume_bytes, layout.volumes);
        let floor = floor::start(&program, &layout.dir, bytes, volumes, Variant::default());
        let floor = floor.map_err(Error::io("start the floor"))?;
        let volume = |number| Volume::nbd_uri(&floor.uri(number));
        let volumes = layout.numbers().map(volume).collect();
        Ok(Floor { floor, volumes })
    }
}

impl Subject for Floor {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        const NAMES: [&str; 3] = ["primary", "follower1", "follower2"];
        let ids = self.floor.pids().into_iter();
        Ok(NAMES.into_iter().zip(ids).map(|(name, id)| Process::new(name, id)).collect())
    }

    /// It leaves nothing for later.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}
