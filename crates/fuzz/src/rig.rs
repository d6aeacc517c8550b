//! A replica host on a disk in memory, with calls that wait for their answers.

use crate::{
    disk::{BLOCK, Image, MemDisk},
    forge::frames::fill_crc,
    target::shared_pool,
};
use holdfast_io::{Disk as _, IoQueue};
use holdfast_replica::{
    Event, FormatOptions, Host, HostError, HostOptions, NewVolume, ReadError, RecoveryReport, Tag,
};
use holdfast_types::{
    BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, ReplicaId, VolumeId,
};
use holdfast_wire::{Append, Fence, Promise, Record, RecordOp, Refusal, StreamSession};

/// Turns after which a host that is still busy hangs: each disk operation takes one.
const TURNS_MAX: usize = 20_000;

/// The history of every volume.
pub(crate) fn history() -> HistoryId {
    HistoryId::from_u128(0x77)
}

/// How a disk is run: small, so that little is a lot.
fn options() -> HostOptions {
    HostOptions {
        unapplied_bytes_max: 1 << 20,
        payload_cache_bytes: 256 << 10,
        map_cache_bytes: 256 << 10,
    }
}

/// A host with its disk.
pub(crate) struct Rig {
    pub(crate) disk: MemDisk,
    pub(crate) host: Host,
    events: Vec<Event>,
    queue: IoQueue,
    next_tag: u64,
}

impl Rig {
    /// Lays a disk out and opens it.
    pub(crate) fn format() -> Self {
        let mut disk = MemDisk::new(Image::default());
        let format =
            FormatOptions { segment_bytes: 1 << 20, segments: 4, capacity_bytes: Some(64 << 20) };
        if let Err(error) = Host::format(&mut disk, &format) {
            panic!("an empty disk is laid out: {error}");
        }
        match Self::open(disk) {
            Ok((rig, _)) => rig,
            Err(error) => panic!("a disk that was just laid out opens: {error}"),
        }
    }

    /// Opens a disk.
    pub(crate) fn open(mut disk: MemDisk) -> Result<(Self, RecoveryReport), HostError> {
        match Host::open(&mut disk, shared_pool(), options()) {
            Ok((host, report)) => {
                let (events, queue) = (Vec::new(), IoQueue::new());
                Ok((Self { disk, host, events, queue, next_tag: 1 }, report))
            }
            Err(error) => Err(error),
        }
    }

    /// A tag that was not used yet.
    pub(crate) fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        Tag(self.next_tag)
    }

    /// One turn: what has ended, then what can start.
    pub(crate) fn turn(&mut self) {
        let mut done = Vec::new();
        self.disk.poll(&mut done);
        for completion in done {
            self.host.complete(completion);
        }
        self.host.flush(&mut self.queue);
        self.disk.submit(&mut self.queue);
        self.host.drain_events(&mut self.events);
    }

    /// Turns until nothing is in flight.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            if self.disk.in_flight() == 0 {
                return;
            }
        }
        panic!("never quiet");
    }

    /// The first event that fits, taken out; turns until there is one, or nothing goes on.
    pub(crate) fn wait<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        for _ in 0..TURNS_MAX {
            if let Some(at) = self.events.iter().position(|event| pick(event).is_some()) {
                return pick(&self.events.remove(at));
            }
            self.turn();
            if self.disk.in_flight() == 0 && self.events.iter().all(|event| pick(event).is_none()) {
                return None;
            }
        }
        panic!("never quiet")
    }

    /// Applies and checkpoints what is committed; whether that came to an end.
    pub(crate) fn drain(&mut self) -> bool {
        self.host.drain();
        self.settle();
        self.host.is_drained()
    }

    pub(crate) fn create(&mut self, volume: VolumeId, blocks: u64) {
        let tag = self.tag();
        let replica = ReplicaId::from_u128(u128::from_be_bytes(volume.to_bytes()) ^ 0xff00);
        self.host.create_volume(tag, &NewVolume { volume, replica, history: history(), blocks });
        self.settle();
    }

    pub(crate) fn fence(
        &mut self,
        volume: VolumeId,
        epoch: u64,
    ) -> Option<Result<Promise, Refusal>> {
        let tag = self.tag();
        let (epoch, node) = (Epoch::new(epoch), NodeId::from_u128(1));
        self.host.fence(tag, &Fence { volume, history: history(), epoch, node });
        self.wait(|event| match event {
            Event::Promised { tag: of, result } if *of == tag => Some(result.clone()),
            _ => None,
        })
    }

    /// The bytes of a range, each block's first, if each block is filled with one.
    pub(crate) fn read(
        &mut self,
        volume: VolumeId,
        epoch: u64,
        at: u64,
        range: BlockRange,
    ) -> Option<Result<Vec<u8>, ReadError>> {
        let tag = self.tag();
        self.host.read(tag, volume, Epoch::new(epoch), Lsn::new(at), range);
        self.wait(|event| match event {
            Event::Read { tag: of, result } if *of == tag => Some(result.as_ref().map_or_else(
                |error| Err(error.clone()),
                |segments| {
                    let blocks = segments.iter().flat_map(|segment| segment.chunks_exact(BLOCK));
                    let fill = |block: &[u8]| {
                        assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
                        block[0]
                    };
                    Ok(blocks.map(fill).collect())
                },
            )),
            _ => None,
        })
    }

    /// Sends records under epoch 1 behind `prev`, all before them committed.
    pub(crate) fn append(&mut self, volume: VolumeId, prev: u64, ops: Vec<RecordOp>) {
        let epoch = Epoch::new(1);
        let records = (prev + 1..)
            .zip(ops)
            .map(|(lsn, op)| Record { lsn: Lsn::new(lsn), epoch, op })
            .collect();
        self.host.append(Append {
            volume,
            history: history(),
            epoch,
            generation: Generation::new(1),
            session: StreamSession(1),
            prev_epoch: if prev == 0 { Epoch::ZERO } else { epoch },
            prev_lsn: Lsn::new(prev),
            records,
            commit_lsn: Lsn::new(prev),
        });
        self.settle();
    }
}

/// A write of blocks that are filled with one byte.
pub(crate) fn write(start: u64, fill: u8, blocks: u64) -> RecordOp {
    let mut buf = shared_pool().alloc(blocks as usize * BLOCK);
    buf.fill(fill);
    let crcs = (0..blocks).map(|_| fill_crc(fill)).collect();
    RecordOp::Write {
        range: BlockRange::new(BlockNo::new(start), blocks),
        data: buf.freeze(),
        crcs,
    }
}
