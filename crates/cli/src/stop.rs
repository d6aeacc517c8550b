//! The signals that end the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// signal(7); the same number on every architecture that we build for.
const SIGXFSZ: i32 = 25;

/// SIGTERM, as a service manager sends it, and SIGINT, as Ctrl-C does.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// A limit on file size then fails one write instead of killing the process.
    _limit: Signal,
}

impl StopSignals {
    /// From now on these signals end nothing by themselves. Needs the runtime.
    pub(crate) fn new() -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("cannot handle signals: {error}");
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(cannot)?,
            interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
            _limit: signal(SignalKind::from_raw(SIGXFSZ)).map_err(cannot)?,
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}
