//! A replica: its disk, its host, and the server in front of it.

use crate::{
    disk::{DiskOptions, SimDisk},
    invariants::{Violation, i2_log_matching, i5_nothing_acknowledged_is_lost},
    model::Point,
    scenario::pump::pump,
    trace::Trace,
};
use holdfast_io::{BufPool, Disk, IoQueue};
use holdfast_replica::{
    Event, FormatOptions, Host, HostOptions, NewVolume, Output, Server, Tag, VolumeReport,
};
use holdfast_types::{NodeId, ReplicaId};

const MIB: u64 = 1 << 20;
/// Leases are of no interest here: nobody reads. They are over before the next engine serves.
const LEASE_MS: u64 = 1;

pub(super) struct Replica {
    pub(super) id: ReplicaId,
    pub(super) node: NodeId,
    pub(super) disk: SimDisk,
    pub(super) host: Host,
    pub(super) server: Server,
}

impl Replica {
    pub(super) fn new(
        number: usize,
        seed: u64,
        pool: &BufPool,
        trace: &Trace,
    ) -> Result<Self, Violation> {
        let options = DiskOptions { device: false, capacity_bytes: 16 * MIB };
        let format =
            FormatOptions { segment_bytes: MIB as u32, segments: 4, capacity_bytes: Some(8 * MIB) };
        let mut disk = SimDisk::new(seed, options, trace.clone());
        let opens = |error| i5_nothing_acknowledged_is_lost::check_opens(&error);
        Host::format(&mut disk, &format).map_err(opens)?;
        let mut host = open(&mut disk, pool)?;
        let id = ReplicaId::from_u128(0x300 + number as u128);
        let new = NewVolume {
            volume: super::VOLUME,
            replica: id,
            history: super::HISTORY,
            blocks: super::BLOCKS,
        };
        host.create_volume(Tag(u64::MAX - 1), &new);
        pump(&mut host, &mut disk, "a creation", |_, _, events| {
            events.iter().any(|event| matches!(event, Event::VolumeChanged { .. }))
        })?;
        let node = NodeId::from_u128(0x100 + number as u128);
        let server = server(node, &host, 0);
        Ok(Self { id, node, disk, host, server })
    }

    /// Loses power, and is there again at once.
    pub(super) fn lose_power(
        &mut self,
        seed: u64,
        pool: &BufPool,
        now_ms: u64,
    ) -> Result<(), Violation> {
        self.disk = self.disk.power_cut(seed);
        self.host = open(&mut self.disk, pool)?;
        self.server = server(self.node, &self.host, now_ms);
        Ok(())
    }

    /// Carries out what there is to do, and says what the server wants of others.
    pub(super) fn settle(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        let (mut queue, mut done, mut events) = (IoQueue::new(), Vec::new(), Vec::new());
        loop {
            self.host.flush(&mut queue);
            let mut moved = !queue.is_empty();
            self.disk.submit(&mut queue);
            if self.disk.in_flight() > 0 {
                self.disk.wait(&mut done);
            }
            for completion in done.drain(..) {
                self.host.complete(completion);
                moved = true;
            }
            self.host.drain_events(&mut events);
            for event in events.drain(..) {
                moved = true;
                // What the server does not want is a local engine's, and there is none.
                let _ = self.server.event(event, &mut self.host, now_ms);
            }
            if !moved {
                break;
            }
        }
        self.server.take(outputs);
    }

    pub(super) fn report(&self) -> VolumeReport {
        let Some(report) = self.host.volume_report(super::VOLUME) else {
            unreachable!("the volume is never deleted")
        };
        report
    }

    /// The end of what it holds on stable storage.
    pub(super) fn durable(&self) -> Point {
        let report = self.report();
        let lsn = report.durable_lsn;
        Point { lsn, epoch: i2_log_matching::epoch_at(&report.epochs, lsn) }
    }
}

fn server(node: NodeId, host: &Host, now_ms: u64) -> Server {
    let mut server = Server::new(node, LEASE_MS, now_ms);
    server.adopt(host, now_ms);
    server
}

fn open(disk: &mut SimDisk, pool: &BufPool) -> Result<Host, Violation> {
    let options = HostOptions {
        unapplied_bytes_max: MIB,
        payload_cache_bytes: MIB,
        map_cache_bytes: 64 << 10,
    };
    match Host::open(disk, pool.clone(), options) {
        Ok((host, _)) => Ok(host),
        Err(error) => Err(i5_nothing_acknowledged_is_lost::check_opens(&error)),
    }
}
