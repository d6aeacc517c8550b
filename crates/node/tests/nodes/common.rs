//! Nodes in this process, on addresses of their own, and the little of NBD that it
//! takes to write a block and read it back.

use holdfast_api::client::Client;
use holdfast_io::{
    BackendChoice,
    net::{Address, Stream},
};
use holdfast_node::{Config, NodeError, Ready, StoreConfig, TimingConfig, VolumeConfig};
use std::{
    net::Ipv4Addr,
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};

/// What does not happen in this time does not happen.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An address of this process alone, in 127/8.
pub(crate) fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let [_, _, high, low] = pid.to_be_bytes();
    Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A small node on `dir`, alone, with nothing but unix sockets.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        name: Some("node1".to_owned()),
        zone: String::new(),
        listen: None,
        advertise: None,
        seeds: Vec::new(),
        nbd: None,
        nbd_advertise: None,
        nbd_socket: None,
        api: None,
        api_advertise: None,
        disks: Vec::new(),
        store: StoreConfig {
            backend: BackendChoice::Threads,
            segment_bytes: 2 << 20,
            segments: 16,
            unapplied_bytes_max: 8 << 20,
            fault: None,
        },
        timing: TimingConfig::default(),
        voters: 3,
        volume: None,
    }
}

/// With the volume of a quick start.
pub(crate) fn with_volume(mut config: Config, size_bytes: u64) -> Config {
    config.volume = Some(VolumeConfig {
        name: "demo".parse().unwrap(),
        size_bytes: Some(size_bytes),
        logical_block_bytes: None,
    });
    config
}

/// Nodes of one cluster in directories below `dir`.
pub(crate) fn cluster(dir: &Path, nodes: usize) -> Vec<Config> {
    let addresses: Vec<Ipv4Addr> = (0..nodes).map(|_| address()).collect();
    let seeds: Vec<String> = addresses.iter().map(|ip| format!("{ip}:7600")).collect();
    let node = |(index, ip): (usize, &Ipv4Addr)| {
        let mut config = config(&dir.join(format!("node{}", index + 1)));
        config.name = Some(format!("node{}", index + 1));
        config.listen = Some((*ip, 7600).into());
        config.nbd = Some((*ip, 10809).into());
        config.seeds = seeds.clone();
        config
    };
    addresses.iter().enumerate().map(node).collect()
}

/// A running node.
pub(crate) struct Running {
    pub(crate) config: Config,
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    ready: oneshot::Receiver<Ready>,
    ended: JoinHandle<Result<(), NodeError>>,
}

impl Running {
    /// Starts it and does not wait.
    pub(crate) fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (came_up, ready) = oneshot::channel();
        let node = holdfast_node::run(
            config.clone(),
            |ready: &Ready| drop(came_up.send(ready.clone())),
            async {
                let _ = stopped.await;
            },
        );
        let ended = tokio::spawn(node);
        let client = Client::of_dir(&config.data_dir);
        Self { config, client, stop, ready, ended }
    }

    /// Waits until it is up.
    pub(crate) async fn ready(&mut self) -> Ready {
        match tokio::time::timeout(LONG, &mut self.ready).await.expect("up in time") {
            Ok(ready) => ready,
            Err(_) => panic!("ended: {:?}", (&mut self.ended).await),
        }
    }

    /// How it ended by itself.
    pub(crate) async fn ended(self) -> Result<(), NodeError> {
        tokio::time::timeout(LONG, self.ended).await.expect("ends in time").unwrap()
    }

    /// Stops it the clean way.
    pub(crate) async fn stop(self) -> Config {
        drop(self.stop);
        tokio::time::timeout(LONG, self.ended).await.expect("stops in time").unwrap().unwrap();
        self.config
    }

    pub(crate) async fn nbd(&self, name: &str) -> Nbd {
        Nbd::connect(&Address::Unix(self.config.data_dir.join("nbd.sock")), name).await.unwrap()
    }
}

/// Waits until `done` finds what it looks for.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = done().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A connection in transmission, with simple replies and one request at a time.
#[derive(Debug)]
pub(crate) struct Nbd {
    stream: Stream,
    pub(crate) size_bytes: u64,
    pub(crate) flags: u16,
}

impl Nbd {
    /// Chooses an export with `NBD_OPT_EXPORT_NAME`.
    pub(crate) async fn connect(address: &Address, name: &str) -> std::io::Result<Self> {
        let mut stream = Stream::connect(address).await?;
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).await?;
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        let mut option = vec![0, 0, 0, 3];
        option.extend(b"IHAVEOPT");
        option.extend(1u32.to_be_bytes());
        option.extend((name.len() as u32).to_be_bytes());
        option.extend(name.bytes());
        stream.write_all(&option).await?;
        let size_bytes = stream.read_u64().await?;
        let flags = stream.read_u16().await?;
        Ok(Self { stream, size_bytes, flags })
    }

    async fn request(
        &mut self,
        command: u16,
        offset: u64,
        len: u32,
        data: &[u8],
    ) -> std::io::Result<u32> {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(command.to_be_bytes());
        request.extend(77u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request).await?;
        assert_eq!(self.stream.read_u32().await?, 0x6744_6698);
        let error = self.stream.read_u32().await?;
        assert_eq!(self.stream.read_u64().await?, 77);
        Ok(error)
    }

    /// Writes; the error number of the reply.
    pub(crate) async fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<u32> {
        self.request(1, offset, data.len() as u32, data).await
    }

    /// Reads.
    pub(crate) async fn read(&mut self, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let error = self.request(0, offset, len as u32, &[]).await?;
        assert_eq!(error, 0, "read");
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data).await?;
        Ok(data)
    }
}
