//! One process of the floor.

use super::{
    drive::{Manner, drive},
    follower::Follower,
    inbox::Inbox,
    link::{Kind, Links},
    log::{LOG_BYTES_MAX, LOG_BYTES_MIN, Log, write_file},
    primary::{DATA_FILE, FOLLOWERS, Primary, Served},
    start::Variant,
};
use clap::Args;
use holdfast_io::{BackendChoice, BufPool, open_disk};
use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::PathBuf,
    time::Duration,
};

/// Memory for buffers: a few times what any job has under way in one node.
const ARENA_BYTES: usize = 128 << 20;
/// The line that says that a primary serves.
pub(super) const READY: &str = "ready";

/// What a process of the floor is told.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// An empty directory for its files.
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// Serves clients on this socket: it is the primary.
    #[arg(long, requires = "follower")]
    pub(super) socket: Option<PathBuf>,
    /// Where the followers are, twice.
    #[arg(long)]
    pub(super) follower: Vec<SocketAddr>,
    /// Size of each export; the log is as large, within bounds.
    #[arg(long)]
    pub(super) bytes: u64,
    /// How many exports.
    #[arg(long, default_value_t = 1)]
    pub(super) exports: u32,
    /// How it goes about it.
    #[command(flatten)]
    pub(super) variant: Variant,
}

/// Runs a process of the floor until its standard input ends.
///
/// # Errors
/// When disk or sockets fail.
pub fn run_node(args: NodeArgs) -> io::Result<()> {
    let pool = BufPool::new(ARENA_BYTES);
    let mut disk = open_disk(&args.dir, BackendChoice::Auto, std::slice::from_ref(&pool))?;
    let ring_bytes = args.bytes.clamp(LOG_BYTES_MIN, LOG_BYTES_MAX);
    let log = Log::create(disk.as_mut(), &pool, ring_bytes)?;
    let manner = Manner {
        spin: Duration::from_micros(args.variant.spin_us),
        sockets_first: args.variant.sockets_first,
    };
    let mut links = Links::default();
    let Some(socket) = args.socket else {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        say(&listener.local_addr()?.to_string())?;
        let (stream, _) = listener.accept()?;
        let primary = join(&mut links, stream, Kind::Primary, &pool)?;
        return drive(&mut Follower::new(log, primary), links, disk.as_mut(), manner);
    };
    let data = write_file(disk.as_mut(), &pool, DATA_FILE, args.bytes)?;
    let mut followers = Vec::new();
    for (place, address) in args.follower.iter().enumerate() {
        let stream = TcpStream::connect(address)?;
        followers.push(join(&mut links, stream, Kind::Follower(place), &pool)?);
    }
    let followers: [_; FOLLOWERS] = followers
        .try_into()
        .map_err(|_| io::Error::other(format!("a primary has {FOLLOWERS} followers")))?;
    let listener = UnixListener::bind(socket)?;
    let served = Served { count: args.exports, bytes: args.bytes };
    let mut primary = Primary::new(pool, listener, served, log, data, followers);
    say(READY)?;
    drive(&mut primary, links, disk.as_mut(), manner)
}

fn join(
    links: &mut Links,
    stream: TcpStream,
    kind: Kind,
    pool: &BufPool,
) -> io::Result<super::link::LinkId> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(links.add(stream.into(), kind, Inbox::new(pool.clone(), &[])))
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
