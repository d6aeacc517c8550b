//! What a connection has under way, and how much of it there may be.

use super::{
    proto::PAYLOAD_BYTES_MAX,
    reply::{EXTENTS_MAX, Echo},
    request::Command,
};

/// Requests of one connection that have been read and not yet been answered in
/// full. More than any common client's queue depth; further ones wait in the socket.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 256;
/// Bytes of data that those may hold: what they are to write, and what they have
/// read until the client takes it. One request may be as large as all of it.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// What a block status request counts for: the extents that its answer may hold.
const STATUS_CHARGE_BYTES: usize = EXTENTS_MAX * size_of::<holdfast_block::Extent>();

const _: () = assert!(PAYLOAD_BYTES_MAX as usize <= IN_FLIGHT_BYTES_MAX);
const _: () = assert!(IN_FLIGHT_REQUESTS_MAX <= Tag::MAX as usize);

/// Names a request of one connection while it is under way.
pub(super) type Tag = u16;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// What its replies repeat.
    pub(super) echo: Echo,
    /// What it asked for; refused ones count as [`Command::Nothing`].
    pub(super) command: Command,
}

impl Entry {
    fn charge_bytes(&self) -> usize {
        match self.command {
            Command::Read { len, .. } | Command::Write { len } => len as usize,
            Command::Status { .. } => STATUS_CHARGE_BYTES,
            Command::Nothing
            | Command::Flush
            | Command::Trim { .. }
            | Command::WriteZeroes { .. } => 0,
        }
    }
}

/// The requests under way, by tag. Allocates only when made.
#[derive(Debug)]
pub(super) struct InFlight {
    entries: Vec<Option<Entry>>,
    free: Vec<Tag>,
    bytes: usize,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![None; IN_FLIGHT_REQUESTS_MAX],
            free: (0..IN_FLIGHT_REQUESTS_MAX as Tag).rev().collect(),
            bytes: 0,
        }
    }

    /// Lets a request in, unless the bounds forbid it for now. An empty one lets
    /// every request in.
    pub(super) fn admit(&mut self, entry: Entry) -> Option<Tag> {
        let bytes = self.bytes + entry.charge_bytes();
        if bytes > IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let tag = self.free.pop()?;
        self.bytes = bytes;
        self.entries[usize::from(tag)] = Some(entry);
        Some(tag)
    }

    /// The request with this tag.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn get(&self, tag: Tag) -> Entry {
        match self.entries[usize::from(tag)] {
            Some(entry) => entry,
            None => unreachable!("tag {tag} is not under way"),
        }
    }

    /// Forgets the request: its last reply has been sent.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn release(&mut self, tag: Tag) {
        self.bytes -= self.get(tag).charge_bytes();
        self.entries[usize::from(tag)] = None;
        self.free.push(tag);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == IN_FLIGHT_REQUESTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(command: Command) -> Entry {
        Entry { echo: Echo { cookie: 0, offset: 0 }, command }
    }

    fn read(len: u32) -> Entry {
        entry(Command::Read { len, unfragmented: false })
    }

    #[test]
    fn the_number_of_requests_is_bounded_also_of_those_without_data() {
        let mut in_flight = InFlight::new();
        let tags: Vec<_> = (0..IN_FLIGHT_REQUESTS_MAX)
            .map(|_| in_flight.admit(entry(Command::Nothing)).unwrap())
            .collect();
        assert_eq!(in_flight.admit(entry(Command::Nothing)), None);
        in_flight.release(tags[7]);
        assert_eq!(in_flight.admit(entry(Command::Flush)), Some(tags[7]));
    }

    #[test]
    fn bytes_are_bounded_and_one_request_may_have_them_all() {
        let mut in_flight = InFlight::new();
        let all = in_flight.admit(read(PAYLOAD_BYTES_MAX)).unwrap();
        assert_eq!(in_flight.admit(read(512)), None);
        assert!(in_flight.admit(entry(Command::Flush)).is_some());
        in_flight.release(all);
        let half = in_flight.admit(read(PAYLOAD_BYTES_MAX / 2)).unwrap();
        assert!(in_flight.admit(entry(Command::Write { len: PAYLOAD_BYTES_MAX / 2 })).is_some());
        assert_eq!(in_flight.admit(entry(Command::Write { len: 512 })), None);
        in_flight.release(half);
        assert!(in_flight.admit(entry(Command::Write { len: 512 })).is_some());
    }
}
