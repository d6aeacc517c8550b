//! The pulls of a shard: at most one a replica, a few of each disk at a time.

use super::{Call, ConnId, Output, Place, PullId, PullReport, Server};
use crate::catchup::{Action, HostCall, Job, Puller};
use crate::host::{Credits, Event, Host};
use holdfast_types::{BlockRange, DiskId, Generation, Lsn, VolumeId};
use holdfast_wire::{
    Ack, FromReplica, Refusal, StreamSession,
    catchup::{Answer, CatchUp, CatchUpError, Source},
};
use std::collections::BTreeMap;

/// Pulls of one disk at a time; the others wait in order. Each has up to three answers of
/// 4 MiB in memory, and a disk that is written to by a few streams of slots is busy.
pub(super) const PULLS_PER_DISK: usize = 4;
/// Sources that are tried for one pull: no set has more members.
const SOURCES_MAX: usize = 16;

/// All pulls.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// Ordered, so that a run can be repeated.
    pulls: BTreeMap<Place, Pull>,
    last_number: u64,
    last_link: u64,
}

/// One pull.
#[derive(Debug)]
struct Pull {
    puller: Puller,
    /// Counts the pulls, so that no answer to an earlier one is taken for this one's.
    number: u64,
    /// The stream that asked for it; `None`: the local engine.
    by: Option<ConnId>,
    link: Option<PullId>,
    runs: bool,
}

impl Server {
    /// The local engine wants its local replica level. Ends in [`Output::CaughtUp`], unless a newer
    /// fence or another call comes first.
    pub fn local_catch_up(
        &mut self,
        volume: VolumeId,
        catch_up: CatchUp,
        host: &mut Host,
        now_ms: u64,
    ) {
        self.start_pull(None, volume, Generation::ZERO, catch_up, host, now_ms);
    }

    /// The pulls under way or waiting.
    #[must_use]
    pub fn pulls(&self) -> Vec<PullReport> {
        let report = |((_, volume), pull): (&Place, &Pull)| {
            let (slots, records) = pull.puller.totals();
            PullReport {
                volume: *volume,
                source: pull.puller.source(),
                state: pull.puller.state().name(),
                last: pull.puller.last(),
                slots,
                records,
            }
        };
        self.pulls.pulls.iter().map(report).collect()
    }

    pub(super) fn start_pull(
        &mut self,
        by: Option<ConnId>,
        volume: VolumeId,
        generation: Generation,
        mut catch_up: CatchUp,
        host: &mut Host,
        now_ms: u64,
    ) {
        let place = (self.adopted(host), volume);
        self.abort_pull(place, now_ms);
        let session = catch_up.session;
        let Some(report) = host.volume_report(volume) else {
            return self.tell(by, volume, session, Err(Refusal::Unknown.into()));
        };
        catch_up.sources.truncate(SOURCES_MAX);
        let job = Job { volume, history: report.history, generation, catch_up };
        self.pulls.last_number += 1;
        let (puller, number) = (Puller::new(job), self.pulls.last_number);
        let pull = Pull { puller, number, by, link: None, runs: false };
        self.pulls.pulls.insert(place, pull);
        self.start_waiting(place.0, now_ms);
    }

    /// Starts pulls of a disk that wait, the oldest first, as many as may run.
    fn start_waiting(&mut self, disk: DiskId, now_ms: u64) {
        loop {
            let of_disk = self.pulls.pulls.iter().filter(|((on, _), _)| *on == disk);
            let (running, waiting): (Vec<_>, Vec<_>) = of_disk.partition(|(_, pull)| pull.runs);
            let next = waiting.into_iter().min_by_key(|(_, pull)| pull.number);
            let Some(place) = next.map(|(place, _)| *place) else { return };
            if running.len() >= PULLS_PER_DISK {
                return;
            }
            if let Some(pull) = self.pulls.pulls.get_mut(&place) {
                pull.runs = true;
                pull.puller.start(now_ms);
            }
            self.act(place, None, now_ms);
        }
    }

    /// Ends a pull without a word: whoever asked for it has gone or asks anew.
    pub(super) fn abort_pull(&mut self, place: Place, now_ms: u64) {
        let Some(pull) = self.pulls.pulls.remove(&place) else { return };
        self.out.extend(pull.link.map(Output::Hangup));
        self.start_waiting(place.0, now_ms);
    }

    /// As [`Self::abort_pull`], if it was this stream that asked.
    pub(super) fn abort_pull_of(&mut self, place: Place, by: ConnId, now_ms: u64) {
        if self.pulls.pulls.get(&place).is_some_and(|pull| pull.by == Some(by)) {
            self.abort_pull(place, now_ms);
        }
    }

    /// The disk has failed: nothing can be fetched to it.
    pub(super) fn fail_pulls(&mut self, disk: DiskId, now_ms: u64) {
        let places: Vec<Place> =
            self.pulls.pulls.keys().filter(|(on, _)| *on == disk).copied().collect();
        for place in places {
            self.end_pull(place, Err(Refusal::DiskFailed.into()), now_ms);
        }
    }

    fn end_pull(&mut self, place: Place, result: Result<Lsn, CatchUpError>, now_ms: u64) {
        let Some(pull) = self.pulls.pulls.remove(&place) else { return };
        self.out.extend(pull.link.map(Output::Hangup));
        self.tell(pull.by, place.1, pull.puller.job().catch_up.session, result);
        self.start_waiting(place.0, now_ms);
    }

    fn tell(
        &mut self,
        by: Option<ConnId>,
        volume: VolumeId,
        session: StreamSession,
        result: Result<Lsn, CatchUpError>,
    ) {
        match by {
            Some(conn) => self.send(conn, FromReplica::CaughtUp(session, result)),
            None => self.out.push(Output::CaughtUp { volume, session, result }),
        }
    }

    pub(super) fn tick_pulls(&mut self, now_ms: u64) {
        let places: Vec<Place> = self.pulls.pulls.keys().copied().collect();
        for place in places {
            if let Some(pull) = self.pulls.pulls.get_mut(&place) {
                pull.puller.tick(now_ms);
                self.act(place, None, now_ms);
            }
        }
    }

    fn place_of(&self, link: PullId) -> Option<Place> {
        let found = self.pulls.pulls.iter().find(|(_, pull)| pull.link == Some(link));
        found.map(|(place, _)| *place)
    }

    /// The pull over this connection, whose host is given.
    fn linked(&mut self, link: PullId, host: &Host) -> Option<(Place, &mut Pull)> {
        let place = self.place_of(link)?;
        assert_eq!(place.0, host.disk_id(), "the connection is of another disk");
        Some((place, self.pulls.pulls.get_mut(&place)?))
    }

    /// The connection to a source is there and welcomed.
    pub fn source_up(&mut self, link: PullId, host: &mut Host, now_ms: u64) {
        let Some((place, pull)) = self.linked(link, host) else { return };
        match host.volume_report(place.1) {
            Some(report) => {
                // What an earlier connection's records were granted and did not use.
                host.unreserve_all(place.1);
                pull.puller.source_up(report.last_lsn, report.durable_lsn, now_ms);
                self.act(place, Some(host), now_ms);
            }
            None => self.end_pull(place, Err(Refusal::Unknown.into()), now_ms),
        }
    }

    /// It could not be opened, or has ended.
    pub fn source_down(&mut self, link: PullId, cause: String, host: &mut Host, now_ms: u64) {
        let Some((place, pull)) = self.linked(link, host) else { return };
        pull.link = None;
        pull.puller.source_down(&cause, now_ms);
        self.act(place, Some(host), now_ms);
    }

    /// A source answers.
    pub fn answer(&mut self, link: PullId, answer: Answer, host: &mut Host, now_ms: u64) {
        let Some((place, pull)) = self.linked(link, host) else { return };
        pull.puller.answer(answer, now_ms);
        self.offer(place, host, now_ms);
    }

    /// Gives a pull the room there is for its records, and carries out what it wants.
    fn offer(&mut self, place: Place, host: &mut Host, now_ms: u64) {
        let lent = self.slots_lent(place.0);
        if let Some(pull) = self.pulls.pulls.get_mut(&place) {
            let Credits { slots, wal_bytes } = host.credits_of(place.1);
            let credits = Credits { slots: slots.saturating_sub(lent), wal_bytes };
            pull.puller.offer(credits, now_ms);
            self.act(place, Some(host), now_ms);
        }
    }

    pub(super) fn offer_pulls(&mut self, host: &mut Host, now_ms: u64) {
        let disk = host.disk_id();
        let places: Vec<Place> =
            self.pulls.pulls.keys().filter(|(on, _)| *on == disk).copied().collect();
        for place in places {
            self.offer(place, host, now_ms);
        }
    }

    /// Whether the acknowledgement is a pull's, and not for its engine.
    pub(super) fn pull_acked(
        &mut self,
        place: Place,
        ack: Ack,
        host: &mut Host,
        now_ms: u64,
    ) -> bool {
        let Some(pull) = self.pulls.pulls.get_mut(&place) else { return false };
        let CatchUp { epoch, session, .. } = pull.puller.job().catch_up;
        if (ack.epoch, ack.session) != (epoch, session) {
            return false;
        }
        pull.puller.acked(ack.durable_lsn);
        self.offer(place, host, now_ms);
        true
    }

    /// Whether the refusal is of a pull's records, and not of its engine's.
    pub(super) fn pull_refused(
        &mut self,
        place: Place,
        session: StreamSession,
        refusal: Refusal,
        host: &mut Host,
        now_ms: u64,
    ) -> bool {
        let Some(pull) = self.pulls.pulls.get_mut(&place) else { return false };
        if pull.puller.job().catch_up.session != session || !pull.puller.has_unacked() {
            return false;
        }
        pull.puller.refused(refusal, now_ms);
        self.act(place, Some(host), now_ms);
        true
    }

    pub(super) fn pull_answered(
        &mut self,
        place: Place,
        number: u64,
        reserved: Option<BlockRange>,
        answer: Event,
        host: &mut Host,
        now_ms: u64,
    ) {
        let pull = self.pulls.pulls.get_mut(&place).filter(|pull| pull.number == number);
        let Some(pull) = pull else {
            // Of a pull that has been ended.
            if let (Event::Reserved { tag, granted: true }, Some(range)) = (answer, reserved) {
                host.unreserve(tag, place.1, range);
            }
            return;
        };
        match answer {
            Event::SettledAll { result, .. } => pull.puller.settled_all(result, now_ms),
            Event::Filled { result, .. } => pull.puller.filled(result, now_ms),
            Event::FillDone { result, .. } => pull.puller.fill_done(result, now_ms),
            Event::Reserved { granted, .. } => pull.puller.reserved(granted, now_ms),
            other => unreachable!("a pull's call was answered by {other:?}"),
        }
        self.offer(place, host, now_ms);
    }

    /// Carries out what a pull wants.
    fn act(&mut self, place: Place, mut host: Option<&mut Host>, now_ms: u64) {
        let Some(pull) = self.pulls.pulls.get_mut(&place) else { return };
        let number = pull.number;
        for action in pull.puller.take_actions() {
            match action {
                Action::Connect(source) => self.connect(place, source),
                Action::Hangup => {
                    let link = self.pulls.pulls.get_mut(&place).and_then(|pull| pull.link.take());
                    self.out.extend(link.map(Output::Hangup));
                }
                Action::Ask(question) => {
                    let link = self.pulls.pulls.get(&place).and_then(|pull| pull.link);
                    self.out.extend(link.map(|link| Output::Ask(link, question)));
                }
                Action::Host(call) => match &mut host {
                    Some(host) => self.call_host(place, number, call, host),
                    None => unreachable!("time alone gives the host nothing to do"),
                },
                Action::Done(result) => {
                    let by = self.pulls.pulls.get(&place).and_then(|pull| pull.by);
                    let level = result.as_ref().ok().copied();
                    self.end_pull(place, result, now_ms);
                    if let (Some(conn), Some(level), Some(host)) = (by, level, &host) {
                        self.is_level(conn, level, host, now_ms);
                    }
                }
            }
        }
    }

    /// The engine sends what is above `level` from here on. The credits that it knows are as
    /// of a record before the pull: it would take all that the pull brought off them, and
    /// with nothing left it would send nothing that could make them be said again.
    fn is_level(&mut self, conn: ConnId, level: Lsn, host: &Host, now_ms: u64) {
        if let Some(stream) = self.stream(conn) {
            stream.received = stream.received.max(level);
            self.say_credits(conn, host, now_ms, true);
        }
    }

    fn connect(&mut self, place: Place, source: Source) {
        self.pulls.last_link += 1;
        let link = PullId(self.pulls.last_link);
        if let Some(pull) = self.pulls.pulls.get_mut(&place) {
            pull.link = Some(link);
        }
        let (disk, volume) = place;
        self.out.push(Output::Connect { pull: link, disk, volume, source });
    }

    fn call_host(&mut self, place: Place, number: u64, call: HostCall, host: &mut Host) {
        let volume = place.1;
        let reserved = match &call {
            HostCall::Reserve(range) => Some(*range),
            _ => None,
        };
        let mut tag = || self.calls.add(Call::Pull { place, number, reserved });
        match call {
            HostCall::SettleAll => host.settle_all(tag(), volume),
            HostCall::Fill(slots, applied) => host.fill(tag(), volume, slots, applied),
            HostCall::FillDone(opened) => host.fill_done(tag(), volume, opened),
            HostCall::Reserve(range) => host.reserve(tag(), volume, range),
            HostCall::Append(append) => {
                let records = host.append(append);
                self.keep_spare(records);
            }
        }
    }
}
