//! A client that keeps as many requests under way as it is told, on a thread of its own.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

const MAGIC: u64 = 0x4948_4156_454F_5054;
const STRUCTURED_REPLY: u32 = 8;
const GO: u32 = 7;
const ACK: u32 = 1;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;
const OFFSET_DATA: u16 = 1;
const DONE: u16 = 1;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) operations: u64,
    pub(crate) depth: usize,
    pub(crate) bytes: u32,
    pub(crate) reads_percent: u64,
    /// One after the other from the front of the volume, else anywhere.
    pub(crate) in_order: bool,
}

/// A connection with structured replies, which are what clients ask for today.
pub(crate) struct Client {
    stream: UnixStream,
    size_bytes: u64,
    random: u64,
    sent: Vec<u8>,
    got: Vec<u8>,
    /// Received and not yet taken up.
    from: usize,
    until: usize,
}

impl Client {
    pub(crate) fn connect(path: &Path, name: &str, size_bytes: u64) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        let mut client = Self {
            stream,
            size_bytes,
            random: 0x9E37_79B9_7F4A_7C15,
            sent: Vec::new(),
            got: vec![0; 4 << 20],
            from: 0,
            until: 0,
        };
        client.option(STRUCTURED_REPLY, &[]);
        let length = (name.len() as u32).to_be_bytes();
        client.option(GO, &[&length[..], name.as_bytes(), &[0, 0]].concat());
        client
    }

    fn option(&mut self, option: u32, data: &[u8]) {
        let head = [&MAGIC.to_be_bytes()[..], &option.to_be_bytes()].concat();
        self.stream.write_all(&head).unwrap();
        self.stream.write_all(&(data.len() as u32).to_be_bytes()).unwrap();
        self.stream.write_all(data).unwrap();
        loop {
            let mut head = [0; 20];
            self.stream.read_exact(&mut head).unwrap();
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let mut data = vec![0; word(16) as usize];
            self.stream.read_exact(&mut data).unwrap();
            assert!(word(12) < 1 << 31, "option {option} is refused: {:#x}", word(12));
            if word(12) == ACK {
                return;
            }
        }
    }

    /// Carries out a job.
    pub(crate) fn run(&mut self, job: Job) {
        let (mut begun, mut done) = (0, 0);
        while done < job.operations {
            self.sent.clear();
            while begun < job.operations && begun - done < job.depth as u64 {
                self.request(job, begun);
                begun += 1;
            }
            self.stream.write_all(&self.sent).unwrap();
            done += self.replies();
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn request(&mut self, job: Job, number: u64) {
        let places = self.size_bytes / u64::from(job.bytes);
        let place = if job.in_order { number } else { self.next_random() } % places;
        let reads = self.next_random() % 100 < job.reads_percent;
        self.sent.extend(REQUEST.to_be_bytes());
        self.sent.extend([0, 0, 0, u8::from(!reads)]);
        self.sent.extend(number.to_be_bytes());
        self.sent.extend((place * u64::from(job.bytes)).to_be_bytes());
        self.sent.extend(job.bytes.to_be_bytes());
        if !reads {
            self.sent.resize(self.sent.len() + job.bytes as usize, number as u8);
        }
    }

    /// Waits for replies; how many requests they end.
    fn replies(&mut self) -> u64 {
        let mut ended = 0;
        while ended == 0 {
            self.got.copy_within(self.from..self.until, 0);
            (self.from, self.until) = (0, self.until - self.from);
            let got = self.stream.read(&mut self.got[self.until..]).unwrap();
            assert!(got > 0, "the server closed the connection");
            self.until += got;
            while let Some((bytes, last)) = reply(&self.got[self.from..self.until]) {
                self.from += bytes;
                ended += u64::from(last);
            }
        }
        ended
    }
}

/// Bytes of the first reply, and whether it is its request's last; `None` if more must come.
fn reply(got: &[u8]) -> Option<(usize, bool)> {
    let magic = u32::from_be_bytes(*got.first_chunk()?);
    if magic == SIMPLE {
        let head: &[u8; 16] = got.first_chunk()?;
        assert_eq!(head[4..8], [0; 4], "an error");
        return Some((16, true));
    }
    assert_eq!(magic, CHUNK);
    let head: &[u8; 20] = got.first_chunk()?;
    let (flags, kind) = ([head[4], head[5]], [head[6], head[7]]);
    let length = u32::from_be_bytes(head[16..].try_into().unwrap()) as usize;
    let kind = u16::from_be_bytes(kind);
    assert!(kind <= OFFSET_DATA, "an error, or a hole where there is data: {kind}");
    (got.len() >= 20 + length).then_some((20 + length, u16::from_be_bytes(flags) & DONE != 0))
}
