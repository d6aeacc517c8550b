//! The files themselves: what the disk gives.

use super::{Layout, Subject, Volume};
use crate::sampling::Process;
use holdfast_tests::{Error, Result};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// fio on files by io_uring, past the page cache.
#[derive(Debug)]
pub struct Raw {
    volumes: Vec<Volume>,
}

impl Raw {
    /// A file for each volume, made if there is none.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(layout: &Layout) -> Result<Raw> {
        let volume = |number| {
            let file = file(layout, number)?;
            let name = format!("--filename={}", file.display());
            let args = ["--ioengine=io_uring", "--direct=1", &name].map(str::to_owned);
            Ok(Volume { fio_args: args.into(), environment: Vec::new() })
        };
        Ok(Raw { volumes: layout.numbers().map(volume).collect::<Result<_>>()? })
    }
}

impl Subject for Raw {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Ok(Vec::new())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// The raw file of a volume, made if there is none.
pub(super) fn file(layout: &Layout, number: u32) -> Result<PathBuf> {
    let path = layout.dir.join(format!("volume{number}.raw"));
    make(&path, layout.volume_bytes)?;
    Ok(path)
}

/// Makes a file of `bytes`, or leaves the one that is there.
pub(super) fn make(path: &Path, bytes: u64) -> Result<()> {
    let what = format!("make {}", path.display());
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    file.and_then(|file| file.set_len(bytes)).map_err(Error::io(what))
}
