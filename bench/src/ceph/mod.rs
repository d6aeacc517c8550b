//! Ceph as a peer: a monitor, a manager and three BlueStore OSDs on this machine, size 3,
//! min_size 2, reached by fio's `rbd` engine.
//!
//! All of it lies below one directory and the daemons are children of the bench; a Ceph that the
//! machine has otherwise is neither used nor touched. How it differs from a Ceph with defaults, and
//! why, stands in `bench/ceph/ceph.conf`.
//!
//! - `config`: the configuration file of a run;
//! - `daemons`: its processes;
//! - `cluster`: makes the cluster, waits for it;
//! - `image`: what fio writes to.

mod cluster;
mod config;
mod daemons;
mod image;

use crate::install;
use crate::sampling::Process;
use crate::subject::{Layout, Subject, Volume};
use config::Config;
use daemons::Daemons;
use holdfast_tests::{Error, Result, command, tools};
use std::fs;

/// OSDs, and copies of each byte.
pub const COPIES: u32 = 3;
/// What differs from its defaults, in a line.
pub const SETUP: &str = "three BlueStore OSDs on written files, size 3, min_size 2; no cephx, debug log, scrubbing, \
     exclusive lock or client cache; 256 MiB of data and 768 MiB of metadata cached by each OSD";
/// What must be installed; fio's engine for it comes with fio.
pub const NEEDS: install::Needs = install::CEPH;
/// What BlueStore needs beside the data: RocksDB, its log, and room to allocate in.
const OSD_BESIDES_BYTES: u64 = 1 << 30;
/// What the monitor's store and the logs take.
const LOGS_BYTES: u64 = 512 << 20;

/// A Ceph cluster that runs; dropped, it stops.
#[derive(Debug)]
pub struct Ceph {
    volumes: Vec<Volume>,
    daemons: Daemons,
}

/// Bytes of disk that it takes for `area_bytes`.
#[must_use]
pub fn room_bytes(area_bytes: u64) -> u64 {
    u64::from(COPIES) * osd_bytes(area_bytes) + LOGS_BYTES
}

/// What the installed one says of its version.
#[must_use]
pub fn version() -> Option<String> {
    let said = tools::succeed(&mut command!("ceph", "--version")).ok()?;
    // `ceph version 16.2.15 (commit) pacific (stable)`.
    said.split_whitespace().nth(2).map(str::to_owned)
}

impl Ceph {
    /// Makes a cluster, brings it up and makes the images.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(layout: &Layout) -> Result<Ceph> {
        fs::create_dir_all(&layout.dir).map_err(Error::io("make Ceph's directory"))?;
        // The daemons change their working directory.
        let dir = layout.dir.canonicalize().map_err(Error::io("find Ceph's directory"))?;
        let area_bytes = u64::from(layout.volumes) * layout.volume_bytes;
        let config = Config::write(dir, osd_bytes(area_bytes))?;
        let mut ceph = Ceph { volumes: Vec::new(), daemons: Daemons::new(&config) };
        cluster::make(&config, &mut ceph.daemons)?;
        for number in 0..layout.volumes {
            ceph.volumes.push(image::make(&config, number, layout.volume_bytes)?);
        }
        Ok(ceph)
    }
}

impl Subject for Ceph {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        self.daemons.processes()
    }

    /// The daemons write next to nothing any more.
    fn settle(&self) -> Result<()> {
        self.daemons.wait_quiet()
    }
}

/// Room for the area, for what small writes leave behind in it, and for BlueStore's own.
fn osd_bytes(area_bytes: u64) -> u64 {
    (area_bytes + area_bytes / 4 + OSD_BESIDES_BYTES).next_multiple_of(1 << 20)
}
