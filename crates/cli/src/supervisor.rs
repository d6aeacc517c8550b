//! Keeps a number of nodes running as processes of their own: starts them, starts again
//! what ends, passes their logs on, and takes them all down at the end.
//!
//! No child outlives this process, not even when it is killed: each asks the kernel, as
//! the first thing that it does ([`die_with`]), to be killed when the thread that started
//! it ends. Children are therefore started by the main thread only.

mod child;
mod lines;

pub(crate) use child::{Child, NodeCommand, die_with};

use crate::{failure::Failure, stop::StopSignals};
use lines::LogLines;
use rustix::process::Signal;
use std::{process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest wait for the children's clean stop. A node's own steps are bounded below this;
/// one that is killed loses nothing that was acknowledged.
const STOP_MAX: Duration = Duration::from_secs(25);
/// Starts of a node that ended by itself each time, after which it counts as unable to.
const START_TRIES: u32 = 3;
/// A second signal ended it, as a shell says it: 128 + SIGINT.
const KILLED: u8 = 130;

/// The children.
#[derive(Debug)]
pub(crate) struct Supervisor {
    children: Vec<Child>,
    lines: LogLines,
}

impl Supervisor {
    /// Starts one child for each command.
    pub(crate) fn start(commands: Vec<NodeCommand>) -> Result<Self, Failure> {
        let lines = LogLines::new()?;
        let mut children: Vec<Child> = commands.into_iter().map(Child::new).collect();
        for child in &mut children {
            child.start(&lines)?;
        }
        Ok(Self { children, lines })
    }

    /// Keeps them running until a signal. `serving` resolves when a volume is served; its
    /// error ends everything, and so does a majority of nodes that cannot start before.
    pub(crate) async fn run(
        mut self,
        mut signals: StopSignals,
        serving: impl Future<Output = Result<(), Failure>>,
    ) -> Result<ExitCode, Failure> {
        tokio::pin!(serving);
        let mut served = false;
        loop {
            let at = self.children.iter().filter_map(Child::due).min();
            let due = async move {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = signals.next() => return self.stop(signals).await,
                outcome = &mut serving, if !served => match outcome {
                    Ok(()) => served = true,
                    Err(failure) => {
                        self.stop(signals).await?;
                        return Err(failure);
                    }
                },
                () = ended(&mut self.children) => {}
                () = due => {
                    for child in &mut self.children {
                        if child.due().is_some_and(|at| at <= Instant::now()) {
                            // The next try comes by itself.
                            if let Err(error) = child.start(&self.lines) {
                                tracing::error!(%error, "a node cannot be started");
                            }
                        }
                    }
                }
            }
            if !served && let Some(failure) = self.hopeless() {
                self.stop(signals).await?;
                return Err(failure);
            }
        }
    }

    /// Why no cluster will come of this, if none will.
    fn hopeless(&self) -> Option<Failure> {
        let unable: Vec<&str> = self
            .children
            .iter()
            .filter(|child| child.failures() >= START_TRIES)
            .map(Child::name)
            .collect();
        let majority = self.children.len() / 2 + 1;
        (unable.len() >= majority).then(|| {
            let names = unable.join(", ");
            Failure::from(format!("{names} cannot start; what they said stands above"))
        })
    }

    /// Stops all children at once; a second signal, or the end of patience, kills them.
    async fn stop(mut self, mut signals: StopSignals) -> Result<ExitCode, Failure> {
        for child in &mut self.children {
            child.signal(Signal::TERM);
        }
        let deadline = Instant::now() + STOP_MAX;
        let mut unclean = Vec::new();
        for child in &mut self.children {
            let waited = tokio::select! {
                waited = timeout_at(deadline, child.wait()) => waited,
                () = signals.next() => {
                    // Those that are left die with this process.
                    std::process::exit(i32::from(KILLED));
                }
            };
            match waited {
                Ok(None) => {}
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => unclean.push(format!("{}: {status}", child.name())),
                Err(_) => {
                    child.signal(Signal::KILL);
                    child.wait().await;
                    let name = child.name();
                    unclean.push(format!("{name} was killed after {} s", STOP_MAX.as_secs()));
                }
            }
        }
        self.lines.finish().await;
        if unclean.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let unclean = unclean.join(", ");
        Err(format!("not stopped cleanly: {unclean}; the next start recovers from its log").into())
    }
}

/// Resolves when a child has ended and is due to be started again. Cancel-safe.
async fn ended(children: &mut [Child]) {
    let mut waits: Vec<_> = children.iter_mut().map(|child| Box::pin(child.ended())).collect();
    std::future::poll_fn(|cx| {
        match waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}
