//! A server as the node builds it: handshakes on one runtime, transmission on
//! the thread of the device.

use crate::device::MemoryDevice;
use holdfast_block::{BlockDevice, Geometry};
use holdfast_frontend::nbd::{
    Connections, End, Export, Exports, HandshakeEnd, Limits, Negotiated, negotiate, serve,
};
use holdfast_io::{
    BufPool,
    net::{Detached, Stream},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime,
    sync::mpsc,
    task::LocalSet,
};

/// No step of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const SIZE: u64 = 256 << 20;

pub fn geometry() -> Geometry {
    Geometry {
        size_bytes: SIZE,
        logical_block_bytes: 512,
        preferred_block_bytes: 4096,
        max_request_bytes: 32 << 20,
        read_only: false,
    }
}

struct One(Export);

impl Exports for One {
    fn list(&self) -> Vec<Export> {
        vec![self.0.clone()]
    }
}

type Job = Box<dyn FnOnce(&Rc<MemoryDevice>, &Connections) + Send>;

enum Event {
    Client(Detached, Negotiated),
    Job(Job),
    Stop,
}

pub struct Server {
    pub path: PathBuf,
    pub tcp: SocketAddr,
    events: mpsc::UnboundedSender<Event>,
    ends: Arc<Mutex<Vec<End>>>,
    refusals: Arc<Mutex<Vec<HandshakeEnd>>>,
    shard: Option<JoinHandle<()>>,
    _control: runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::with(geometry(), Limits::default())
    }

    pub fn with(geometry: Geometry, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd.sock");
        let (events, queue) = mpsc::unbounded_channel();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let shard = {
            let (geometry, ends) = (geometry.clone(), ends.clone());
            std::thread::spawn(move || shard(geometry, queue, ends))
        };
        let control =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let exports = Arc::new(One(Export {
            name: "demo".into(),
            description: "a volume in memory".into(),
            geometry,
        }));
        let tcp = control.block_on(async {
            let unix = UnixListener::bind(&path).unwrap();
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let (events, refusals) = (events.clone(), refusals.clone());
            tokio::spawn(async move {
                loop {
                    let mut stream = tokio::select! {
                        unix = unix.accept() => Stream::unix(unix.unwrap().0),
                        tcp = tcp.accept() => Stream::tcp(tcp.unwrap().0).unwrap(),
                    };
                    let (events, refusals) = (events.clone(), refusals.clone());
                    let exports = exports.clone();
                    tokio::spawn(async move {
                        match negotiate(&mut stream, &*exports, &limits).await {
                            Ok(negotiated) => {
                                let detached = stream.detach().unwrap();
                                let _ = events.send(Event::Client(detached, negotiated));
                            }
                            Err(end) => refusals.lock().unwrap().push(end),
                        }
                    });
                }
            });
            address
        });
        Self { path, tcp, events, ends, refusals, shard: Some(shard), _control: control, _dir: dir }
    }

    /// Runs `job` on the shard and returns what it returns.
    pub fn on_shard<R: Send + 'static>(
        &self,
        job: impl FnOnce(&MemoryDevice, &Connections) -> R + Send + 'static,
    ) -> R {
        let (tell, told) = sync_channel(1);
        let job: Job = Box::new(move |device, connections| {
            tell.send(job(device, connections)).unwrap();
        });
        assert!(self.events.send(Event::Job(job)).is_ok());
        match told.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => panic!("the shard does not answer"),
            Err(RecvTimeoutError::Disconnected) => panic!("the shard died"),
        }
    }

    pub fn hold(&self, hold: bool) {
        self.on_shard(move |device, _| device.hold.set(hold));
    }

    /// Carries out one held request.
    pub fn release(&self, newest: bool) -> bool {
        self.on_shard(move |device, _| device.release(newest))
    }

    pub fn release_all(&self) {
        self.on_shard(|device, _| while device.release(false) {});
    }

    pub fn log(&self) -> Vec<(&'static str, u64)> {
        self.on_shard(|device, _| device.log.borrow().clone())
    }

    /// Waits until the device has been given `count` requests, and makes sure
    /// that it is given no more for a moment.
    pub fn settles_at(&self, count: usize) {
        eventually(&format!("{count} requests"), || self.log().len() >= count);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(self.log().len(), count);
    }

    /// Waits until `count` transmissions have ended; how, in order.
    pub fn ends(&self, count: usize) -> Vec<End> {
        eventually("the ends", || self.ends.lock().unwrap().len() >= count);
        self.ends.lock().unwrap().clone()
    }

    /// Waits for a handshake that failed.
    pub fn refusal(&self) -> HandshakeEnd {
        eventually("a failed handshake", || !self.refusals.lock().unwrap().is_empty());
        self.refusals.lock().unwrap().remove(0)
    }

    pub fn unix_uri(&self) -> String {
        format!("nbd+unix:///demo?socket={}", self.path.display())
    }

    pub fn tcp_uri(&self) -> String {
        format!("nbd://{}/demo", self.tcp)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        let result = self.shard.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn shard(
    geometry: Geometry,
    mut queue: mpsc::UnboundedReceiver<Event>,
    ends: Arc<Mutex<Vec<End>>>,
) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let pool = BufPool::new(8 << 20);
        let device = Rc::new(MemoryDevice::new(geometry, pool.clone()));
        let connections = Connections::new();
        while let Some(event) = queue.recv().await {
            match event {
                Event::Client(detached, negotiated) => {
                    let stream = detached.attach().unwrap();
                    let device: Rc<dyn BlockDevice> = device.clone();
                    let (connections, pool) = (connections.clone(), pool.clone());
                    let ends = ends.clone();
                    tokio::task::spawn_local(async move {
                        let end = serve(stream, negotiated, device, &connections, pool).await;
                        ends.lock().unwrap().push(end);
                    });
                }
                Event::Job(job) => job(&device, &connections),
                Event::Stop => break,
            }
        }
    });
}
