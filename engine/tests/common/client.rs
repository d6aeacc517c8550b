//! A client of a volume, on the volume's shard.

use holdfast_block::{
    BlockDevice as _, BlockError, Context, Op, Payload, Priority, Reply, Request, Session,
};
use holdfast_engine::runtime::{Shard, Volume};
use holdfast_io::BufPool;
use holdfast_types::VolumeId;
use std::{future::poll_fn, rc::Rc, time::Instant};

/// A client that has one request under way at a time.
pub(crate) struct Client {
    pub(crate) device: Rc<Volume>,
    pub(crate) session: Rc<Session>,
    pool: BufPool,
}

impl Client {
    pub(crate) fn new(shard: &Shard, volume: VolumeId) -> Self {
        let device = shard.volume(volume).unwrap();
        Self { session: device.open(), device, pool: shard.pool() }
    }

    pub(crate) fn submit(&self, tag: u64, op: Op) {
        let context =
            Context { arrived: Instant::now(), priority: Priority::Normal, deadline: None };
        self.device.submit(&self.session, Request { tag, context, op });
    }

    pub(crate) async fn end(&self) -> Option<(u64, Result<Reply, BlockError>)> {
        loop {
            if let Some(completion) = self.session.try_next() {
                return Some((completion.tag, completion.result));
            }
            poll_fn(|cx| self.session.poll_ready(cx)).await;
            if self.session.is_closed() {
                return None;
            }
        }
    }

    pub(crate) async fn call(&self, op: Op) -> Result<Reply, BlockError> {
        self.submit(1, op);
        self.end().await.map_or(Err(BlockError::Stopped), |(_, result)| result)
    }

    pub(crate) fn payload(&self, offset: u64, data: &[u8]) -> Op {
        let mut payload = Payload::alloc(&self.pool, offset, data.len());
        let mut rest = data;
        for part in payload.parts_mut() {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        Op::Write { offset, data: payload }
    }

    pub(crate) async fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.call(self.payload(offset, data)).await.map(|_| ())
    }

    pub(crate) async fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, BlockError> {
        match self.call(Op::Read { offset, len: len as u32 }).await? {
            Reply::Data(segments) => Ok(segments.iter().flat_map(|s| s.iter().copied()).collect()),
            other => panic!("a read answered with {other:?}"),
        }
    }
}
