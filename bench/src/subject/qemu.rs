//! QEMU's NBD server: on a raw file, and in front of three others as a quorum.

use super::raw::{file, make};
use super::{Layout, Subject, Volume};
use crate::sampling::Process;
use holdfast_tests::{Error, Result, command};
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between looks at whether it listens.
const POLL: Duration = Duration::from_millis(10);
/// It listens at once, or not at all.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);
/// Connections that it takes: those of the job with most, and one to look whether it listens.
const CONNECTIONS: &str = "8";
/// The name of every export.
const EXPORT: &str = "x";
/// Copies of the quorum.
const COPIES: usize = 3;

/// A qemu-nbd; killed when dropped.
#[derive(Debug)]
struct Server {
    name: String,
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// On a raw file, past the page cache, by io_uring.
    fn on_file(name: String, socket: PathBuf, file: &Path) -> Result<Server> {
        let mut command = command!("qemu-nbd", "-f", "raw", "--cache=none", "--aio=io_uring");
        command.arg(file);
        Server::start(name, socket, command)
    }

    /// In front of `copies`.
    fn on_quorum(name: String, socket: PathBuf, copies: &[Server]) -> Result<Server> {
        let mut image = "driver=quorum,vote-threshold=2,read-pattern=fifo".to_owned();
        for (index, copy) in copies.iter().enumerate() {
            let child = format!("children.{index}");
            image += &format!(
                ",{child}.driver=nbd,{child}.server.type=unix,{child}.server.path={},{child}.export={EXPORT}",
                copy.socket.display()
            );
        }
        Server::start(name, socket, command!("qemu-nbd", "--image-opts", image))
    }

    fn start(name: String, socket: PathBuf, mut command: Command) -> Result<Server> {
        command.args(["-t", "-e", CONNECTIONS, "-x", EXPORT, "-k"]).arg(&socket);
        let log_path = socket.with_extension("log");
        let log = File::create(&log_path).map_err(Error::io("make qemu-nbd's log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(Error::io("start qemu-nbd"))?;
        let mut server = Server { name, child, socket };
        let deadline = Instant::now() + LISTEN_WITHIN;
        while UnixStream::connect(&server.socket).is_err() {
            let ended = server.child.try_wait().map_err(Error::io("look after qemu-nbd"))?;
            if ended.is_some() || Instant::now() > deadline {
                let mut said = String::new();
                // What cannot be read is missing from the message.
                let _ = File::open(&log_path).and_then(|mut log| log.read_to_string(&mut said));
                return Err(Error::Server(format!("qemu-nbd does not listen: {said}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(server)
    }

    fn volume(&self) -> Volume {
        Volume::nbd(EXPORT, &self.socket)
    }

    fn process(&self) -> Process {
        Process::new(&self.name, self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A qemu-nbd for each volume, on a raw file each.
#[derive(Debug)]
pub struct Plain {
    servers: Vec<Server>,
    volumes: Vec<Volume>,
}

impl Plain {
    /// Starts them.
    ///
    /// # Errors
    /// When one does not listen.
    pub fn start(layout: &Layout) -> Result<Plain> {
        let server = |number| {
            let socket = layout.dir.join(format!("volume{number}.sock"));
            Server::on_file(format!("qemu-nbd{number}"), socket, &file(layout, number)?)
        };
        let servers = layout.numbers().map(server).collect::<Result<Vec<_>>>()?;
        let volumes = servers.iter().map(Server::volume).collect();
        Ok(Plain { servers, volumes })
    }
}

impl Subject for Plain {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Ok(self.servers.iter().map(Server::process).collect())
    }

    /// It does nothing by itself.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// For each volume three qemu-nbd on raw files, and one before them that writes to all three
/// and acknowledges when two have; the first is read.
#[derive(Debug)]
pub struct Quorum {
    // Dropped before what they are in front of.
    fronts: Vec<Server>,
    copies: Vec<Server>,
    volumes: Vec<Volume>,
}

impl Quorum {
    /// Starts them.
    ///
    /// # Errors
    /// When one does not listen.
    pub fn start(layout: &Layout) -> Result<Quorum> {
        let (mut fronts, mut all) = (Vec::new(), Vec::new());
        for number in layout.numbers() {
            let copy = |copy: usize| {
                let path = |ending| layout.dir.join(format!("volume{number}-copy{copy}.{ending}"));
                let file = path("raw");
                make(&file, layout.volume_bytes)?;
                Server::on_file(format!("copy{copy} of volume{number}"), path("sock"), &file)
            };
            let copies = (0..COPIES).map(copy).collect::<Result<Vec<_>>>()?;
            let socket = layout.dir.join(format!("volume{number}.sock"));
            fronts.push(Server::on_quorum(format!("quorum{number}"), socket, &copies)?);
            all.extend(copies);
        }
        let volumes = fronts.iter().map(Server::volume).collect();
        Ok(Quorum { fronts, copies: all, volumes })
    }
}

impl Subject for Quorum {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Ok(self.fronts.iter().chain(&self.copies).map(Server::process).collect())
    }

    /// It does nothing by itself.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}
