//! A daemon with a directory and ports of its own, for one test.

use crate::daemon::{Daemon, Options, Serving, binary};
use crate::{Error, Result, tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running daemon and its directory.
#[derive(Debug)]
pub struct Fixture {
    /// The daemon; killed before its directory goes.
    pub daemon: Daemon,
    /// Where it serves.
    pub serving: Serving,
    /// How it was started.
    pub options: Options,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Starts one with a small log and `args`.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Fixture> {
        Fixture::start_as(|data_dir| Options::new(data_dir).with_small_log().with(args))
    }

    /// Starts one on a data directory that is given to `options`.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start_as(options: impl FnOnce(PathBuf) -> Options) -> Result<Fixture> {
        let dir = tempfile::Builder::new()
            .prefix("holdfast-")
            .tempdir()
            .map_err(Error::io("make a directory"))?;
        let options = options(dir.path().join("data"));
        let (daemon, serving) = Daemon::start(&options)?;
        Ok(Fixture { daemon, serving, options, dir })
    }

    /// URI over TCP.
    ///
    /// # Panics
    /// When it was started without.
    #[must_use]
    pub fn tcp(&self) -> &str {
        let Some(uri) = &self.serving.tcp else { panic!("the daemon was started without TCP") };
        uri
    }

    /// URI over its unix socket.
    #[must_use]
    pub fn unix(&self) -> &str {
        &self.serving.unix
    }

    /// A path beside the data directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Starts it again on the same data, after a stop or a kill.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start_again(&mut self) -> Result<()> {
        (self.daemon, self.serving) = Daemon::start(&self.options)?;
        Ok(())
    }

    /// Stops it cleanly and starts it on the same data.
    ///
    /// # Errors
    /// When it does not stop or does not serve.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.stop()?;
        self.start_again()
    }

    /// `holdfast WORDS --data-dir DIR`, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn holdfast(&self, words: &[&str]) -> Result<tools::Said> {
        let mut command = Command::new(binary()?);
        command.args(words).arg("--data-dir").arg(self.data_dir());
        tools::run(&mut command)
    }

    /// `holdfast status -o json`.
    ///
    /// # Errors
    /// When the daemon does not answer, or not with JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let said = self.holdfast(&["status", "-o", "json"])?;
        serde_json::from_str(&said.out).map_err(|error| Error::Tool(format!("{error}: {said:?}")))
    }
}
