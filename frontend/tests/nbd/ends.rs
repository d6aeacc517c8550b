//! How connections end, and what becomes of what was under way.

use crate::{client::*, server::*};
use holdfast_frontend::nbd::{End, HandshakeEnd, IN_FLIGHT_REQUESTS_MAX, Limits};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[test]
fn disconnecting_waits_for_what_is_under_way() {
    for tcp in [false, true] {
        let server = Server::start();
        let mut client = Client::open(&server, Mode::Structured, tcp);
        server.hold(true);
        let write = client.begin_write(0, 0, &pattern(1, 4096));
        let read = client.begin(READ, 0, 4096, 4096);
        client.begin(DISC, 0, 0, 0);
        // Whatever comes behind it is not looked at.
        client.begin(TRIM, 0, 0, 4096);
        server.settles_at(2);
        server.release_all();
        assert_eq!(client.finish(write).error, 0);
        assert_eq!(client.finish(read).error, 0);
        assert!(client.is_closed());
        assert_eq!(server.ends(1), [End::Disconnected]);
        assert_eq!(server.log().len(), 2);
    }
}

#[test]
fn disconnecting_and_going_away_still_carries_out_what_was_asked() {
    for tcp in [false, true] {
        let server = Server::start();
        let mut client = Client::open(&server, Mode::Structured, tcp);
        server.hold(true);
        for i in 0..10 {
            client.begin_write(0, i * 4096, &pattern(i, 4096));
        }
        client.begin(DISC, 0, 0, 0);
        server.settles_at(10);
        drop(client);
        std::thread::sleep(Duration::from_millis(20));
        server.hold(false);
        server.release_all();
        assert_eq!(server.ends(1), [End::Disconnected]);
        assert_eq!(server.on_shard(|device, _| device.dropped.get()), 0);
        let mut client = Client::open(&server, Mode::Structured, tcp);
        assert!(client.read(9 * 4096, 4096) == pattern(9, 4096));
    }
}

#[test]
fn a_client_that_closes_its_side_gets_its_replies() {
    for tcp in [false, true] {
        let server = Server::start();
        let mut client = Client::open(&server, Mode::Structured, tcp);
        server.hold(true);
        let write = client.begin_write(0, 0, &pattern(1, 4096));
        // A request that is not whole counts for nothing.
        let half = client.request(WRITE, 0, 0, 1 << 20).1;
        client.send(&half);
        client.close_half();
        server.settles_at(1);
        server.release_all();
        assert_eq!(client.finish(write).error, 0);
        assert!(client.is_closed());
        assert_eq!(server.ends(1), [End::Closed]);
    }
}

#[test]
fn a_lost_connection_drops_what_is_not_yet_sequenced() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Structured, false);
    server.hold(true);
    client.begin_write(0, 0, &pattern(1, 4096));
    server.settles_at(1);
    drop(client);
    assert_eq!(server.ends(1), [End::Lost]);
    server.hold(false);
    server.release_all();
    assert_eq!(server.on_shard(|device, _| device.dropped.get()), 1);
}

#[test]
fn a_lost_connection_is_noticed_while_its_requests_are_not_read() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Structured, false);
    server.hold(true);
    for i in 0..IN_FLIGHT_REQUESTS_MAX as u64 + 50 {
        client.begin_write(0, i * 512, &pattern(i, 512));
    }
    server.settles_at(IN_FLIGHT_REQUESTS_MAX);
    drop(client);
    assert_eq!(server.ends(1), [End::Lost]);
    server.release_all();
    let dropped = server.on_shard(|device, _| device.dropped.get());
    assert_eq!(dropped, IN_FLIGHT_REQUESTS_MAX);
}

#[test]
fn a_session_that_the_volume_closes_ends_its_connection() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Structured, false);
    server.hold(true);
    client.begin(READ, 0, 0, 512);
    server.settles_at(1);
    server.on_shard(|device, _| device.sessions.borrow()[0].close());
    assert!(client.is_closed());
    assert_eq!(server.ends(1), [End::SessionClosed]);
}

#[test]
fn stopping_answers_what_was_read_and_closes() {
    let server = Server::start();
    let mut idle = Client::open(&server, Mode::Simple, false);
    let mut busy = Client::open(&server, Mode::Structured, true);
    server.hold(true);
    let write = busy.begin_write(0, 0, &pattern(1, 4096));
    let half = busy.request(WRITE, 0, 0, 4096).1;
    busy.send(&half);
    server.settles_at(1);
    let all_gone = Arc::new(AtomicBool::new(false));
    let tell = all_gone.clone();
    server.on_shard(|_, connections| {
        connections.stop();
        let connections = connections.clone();
        tokio::task::spawn_local(async move {
            connections.idle().await;
            tell.store(true, Ordering::SeqCst);
        });
    });
    assert!(idle.is_closed());
    assert!(!all_gone.load(Ordering::SeqCst));
    server.release_all();
    assert_eq!(busy.finish(write).error, 0);
    assert!(busy.is_closed());
    assert_eq!(server.ends(2), [End::Stopped, End::Stopped]);
    eventually("idleness", || all_gone.load(Ordering::SeqCst));
    assert!(server.on_shard(|_, connections| connections.is_empty()));
    // One that comes later is turned away at once.
    let mut late = Client::open(&server, Mode::Simple, false);
    assert!(late.is_closed());
}

#[test]
fn what_cannot_be_followed_ends_the_connection() {
    for mode in MODES {
        let server = Server::start();
        let mut client = Client::open(&server, mode, false);
        client.send(&[0x5a; 32]);
        assert!(client.is_closed());
        let mut client = Client::open(&server, mode, false);
        client.begin(WRITE, 0, 0, (32 << 20) + 512);
        assert!(client.is_closed());
        assert!(server.ends(2).iter().all(|end| matches!(end, End::Violation(_))));
    }
}

#[test]
fn handshakes_end_in_time_and_in_order() {
    let hasty = Limits { handshake_timeout: Duration::from_millis(50), options_max: 3 };
    let server = Server::with(geometry(), hasty);
    let mut client = Client::connect(&server, false);
    client.receive(18);
    assert!(client.is_closed());
    assert!(matches!(server.refusal(), HandshakeEnd::TimedOut));

    let server = Server::with(geometry(), Limits { options_max: 3, ..Limits::default() });
    let mut client = Client::connect(&server, true);
    client.greet();
    for _ in 0..3 {
        client.send(&Client::option_bytes(3, &[]));
        client.read_acknowledgement();
    }
    client.send(&Client::option_bytes(3, &[]));
    assert!(client.is_closed());
    assert!(matches!(server.refusal(), HandshakeEnd::Violation(_)));

    let mut client = Client::connect(&server, true);
    client.greet();
    client.send(&Client::option_bytes(2, &[]));
    assert_eq!(client.option_reply(), (1, vec![]));
    assert!(client.is_closed());
    assert!(matches!(server.refusal(), HandshakeEnd::Aborted));

    drop(Client::connect(&server, true));
    assert!(matches!(server.refusal(), HandshakeEnd::Closed | HandshakeEnd::Io(_)));

    let mut client = Client::connect(&server, false);
    client.greet();
    client.send(&Client::option_bytes(1, b"other"));
    assert!(client.is_closed());
    assert!(matches!(server.refusal(), HandshakeEnd::UnknownExport(_)));
}

/// A client fills a connection until the server reads no more, vanishes, and
/// writes something newer over another connection. What lay in the old socket,
/// and what was not sequenced, must not come after.
fn late_writes(new_has_written: bool) {
    let server = Server::start();
    let mut new = Client::open(&server, Mode::Structured, true);
    if new_has_written {
        assert_eq!(new.write(1 << 20, &pattern(1, 512)), 0);
    }
    let before = server.log().len();
    let mut old = Client::open(&server, Mode::Structured, true);
    server.hold(true);
    for _ in 0..IN_FLIGHT_REQUESTS_MAX as u64 + 100 {
        old.begin_write(0, 0, &pattern(7, 512));
    }
    server.settles_at(before + IN_FLIGHT_REQUESTS_MAX);
    drop(old);
    if new_has_written {
        // Only an event tells of the old socket now.
        std::thread::sleep(Duration::from_millis(100));
    }
    let newer = new.begin_write(0, 0, &pattern(8, 512));
    assert_eq!(server.ends(1), [End::SessionClosed]);
    server.hold(false);
    server.release_all();
    assert_eq!(new.finish(newer).error, 0);
    assert!(new.read(0, 512) == pattern(8, 512));
    assert_eq!(server.on_shard(|device, _| device.dropped.get()), IN_FLIGHT_REQUESTS_MAX);
}

#[test]
fn a_connections_first_write_comes_after_no_older_one() {
    late_writes(false);
}

#[test]
fn a_later_write_comes_after_none_of_a_connection_that_hung_up() {
    late_writes(true);
}

#[test]
fn other_connections_are_left_alone_by_writes() {
    let server = Server::start();
    let mut first = Client::open(&server, Mode::Structured, true);
    let mut leaving = Client::open(&server, Mode::Structured, true);
    server.hold(true);
    let kept = first.begin_write(0, 0, &pattern(1, 512));
    // Said goodbye: its writes count although it has closed.
    leaving.begin_write(0, 4096, &pattern(2, 512));
    leaving.begin(DISC, 0, 0, 0);
    server.settles_at(2);
    drop(leaving);
    let mut second = Client::open(&server, Mode::Structured, true);
    let newer = second.begin_write(0, 8192, &pattern(3, 512));
    server.settles_at(3);
    server.hold(false);
    server.release_all();
    assert_eq!(first.finish(kept).error, 0);
    assert_eq!(second.finish(newer).error, 0);
    assert!(second.read(4096, 512) == pattern(2, 512));
    assert_eq!(server.on_shard(|device, _| device.dropped.get()), 0);
}
