//! Starts the three processes.

use super::node::READY;
use clap::Args;
use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// How a floor goes about it. The default is the product's way.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Variant {
    /// Looks for news for so many µs before it sleeps.
    #[arg(long, default_value_t = 0)]
    pub spin_us: u64,
    /// Sends to the other nodes before it submits to its own disk.
    #[arg(long)]
    pub sockets_first: bool,
}

/// Three processes that serve. They end when this is dropped.
#[derive(Debug)]
pub struct Floor {
    socket: PathBuf,
    children: Vec<Child>,
}

impl Floor {
    /// Where export `number` is, counted from 0.
    #[must_use]
    pub fn uri(&self, number: u32) -> String {
        format!("nbd+unix:///{number}?socket={}", self.socket.display())
    }

    /// The primary's and the followers' process ids.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the three below `dir`, which exists, with `exports` exports of `bytes` each (all on one
/// file, which is written fully first: `dir` takes that and three logs of at most 512 MiB). `program` is this
/// program's file, whose subcommand `floor-node` is [`run_node`](super::run_node).
///
/// # Errors
/// When one of them does not start.
pub fn start(
    program: &Path,
    dir: &Path,
    bytes: u64,
    exports: u32,
    variant: Variant,
) -> io::Result<Floor> {
    let socket = dir.join("floor.sock");
    let mut floor = Floor { socket: socket.clone(), children: Vec::new() };
    let mut primary = Vec::new();
    for place in 1..=2 {
        let dir = dir.join(format!("follower-{place}"));
        let address = floor.spawn(program, &dir, bytes, variant, &[])?;
        primary.extend(["--follower".to_owned(), address]);
    }
    primary.extend(["--socket".to_owned(), socket.display().to_string()]);
    primary.extend(["--exports".to_owned(), exports.to_string()]);
    let line = floor.spawn(program, &dir.join("primary"), bytes, variant, &primary)?;
    if line != READY {
        return Err(io::Error::other(format!("the floor's primary said {line:?}")));
    }
    floor.children.rotate_right(1);
    Ok(floor)
}

impl Floor {
    /// Starts one process and returns its first line.
    fn spawn(
        &mut self,
        program: &Path,
        dir: &Path,
        bytes: u64,
        variant: Variant,
        args: &[String],
    ) -> io::Result<String> {
        fs::create_dir(dir)?;
        let mut command = Command::new(program);
        command.arg("floor-node").arg("--dir").arg(dir).args(args);
        command.arg("--bytes").arg(bytes.to_string());
        command.arg("--spin-us").arg(variant.spin_us.to_string());
        if variant.sockets_first {
            command.arg("--sockets-first");
        }
        // It ends when its standard input does, with us at the latest.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        self.children.push(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim_end() {
            "" => Err(io::Error::other("a process of the floor ended before it served")),
            line => Ok(line.to_owned()),
        }
    }
}
