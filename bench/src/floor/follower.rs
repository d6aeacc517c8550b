//! A node that logs what the primary sends, and says so.

use super::{
    drive::Node,
    link::{Link, LinkId, Links},
    log::{Log, Serial},
    primary::{BATCH_HEADER_BYTES, number},
};
use holdfast_io::{Completion, IoQueue};
use std::io;

/// A follower.
pub(super) struct Follower {
    log: Log,
    primary: LinkId,
    /// The batch that comes has begun.
    receiving: bool,
    acknowledged: Serial,
}

impl Follower {
    pub(super) fn new(log: Log, primary: LinkId) -> Self {
        Self { log, primary, receiving: false, acknowledged: 0 }
    }
}

impl Node for Follower {
    fn takes(&self, _: &Link, _: usize) -> bool {
        !self.log.is_full()
    }

    fn received(&mut self, link: &mut Link) -> io::Result<()> {
        loop {
            if self.receiving {
                let Some(payload) = link.inbox.payload() else { return Ok(()) };
                self.receiving = false;
                self.log.append(payload);
            }
            let Some(header) = link.inbox.header(BATCH_HEADER_BYTES) else { return Ok(()) };
            let bytes = number(&header[8..]);
            link.inbox.consume(BATCH_HEADER_BYTES);
            link.inbox.begin(bytes as usize);
            self.receiving = true;
        }
    }

    fn completed(&mut self, completion: Completion, _: &mut Links) -> io::Result<()> {
        self.log.completed(completion)
    }

    fn turn(&mut self, links: &mut Links, queue: &mut IoQueue) -> io::Result<()> {
        self.log.flush(queue);
        if self.acknowledged < self.log.durable()
            && let Some(link) = links.get(self.primary)
        {
            self.acknowledged = self.log.durable();
            link.outbox.push(&self.acknowledged.to_le_bytes());
        }
        Ok(())
    }
}
