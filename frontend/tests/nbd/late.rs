//! Late writes, by the transmission alone: what an older connection's client left behind must
//! not take effect behind a newer connection's writes.

use crate::{device::MemoryDevice, server::geometry};
use holdfast_frontend::nbd::{
    Connections, End, Export, Exports, Negotiated, Negotiation, Peer, Progress, Transmission,
};
use holdfast_io::{BufPool, net::Hangup};
use std::{cell::Cell, io::Read, rc::Rc, time::Instant};

struct One;

impl Exports for One {
    fn list(&self) -> Vec<Export> {
        vec![Export { name: "one".into(), description: String::new(), geometry: geometry() }]
    }
}

struct Far(Cell<Hangup>);

impl Peer for Far {
    fn hangup(&self) -> Hangup {
        self.0.get()
    }
}

/// The oldest handshake there is, and the shortest.
fn shake_hands() -> Negotiated {
    let mut negotiation = Negotiation::new(1);
    negotiation.received(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03one");
    loop {
        match negotiation.step(&One) {
            None => {}
            Some(Progress::Done(negotiated)) => return negotiated,
            other => panic!("{other:?}"),
        }
    }
}

/// A device's connections.
struct Clients {
    device: Rc<MemoryDevice>,
    connections: Connections,
    pool: BufPool,
}

impl Clients {
    fn new() -> Self {
        let pool = BufPool::new(0);
        let device = Rc::new(MemoryDevice::new(geometry(), pool.clone()));
        Self { device, connections: Connections::new(), pool }
    }

    fn join(&self, negotiated: &Negotiated, hangup: Hangup) -> Transmission {
        let far = Rc::new(Far(Cell::new(hangup)));
        let device = self.device.clone();
        Transmission::new(negotiated, device, &self.connections, far, self.pool.clone())
    }

    fn writes(&self) -> usize {
        self.device.log.borrow().len()
    }
}

/// A write of one sector arrives.
fn write(transmission: &mut Transmission) {
    let mut bytes = b"\x25\x60\x95\x13\0\0\0\x01COOKIE..".to_vec();
    bytes.extend(0u64.to_be_bytes());
    bytes.extend(512u32.to_be_bytes());
    bytes.extend([7; 512]);
    let received = (&bytes[..]).read_vectored(&mut transmission.room()).unwrap();
    assert_eq!(received, bytes.len());
    transmission.received(received);
    transmission.take_requests(Instant::now()).unwrap();
}

#[test]
fn one_that_waited_and_was_given_up_comes_after_no_newer_ones_write() {
    for hangup in [Hangup::Half, Hangup::Full] {
        let clients = Clients::new();
        // Both waited for the volume to be served; the newer one is let in first.
        let (older, newer) = (shake_hands(), shake_hands());
        let mut newer = clients.join(&newer, Hangup::No);
        write(&mut newer);
        let older = clients.join(&older, hangup);
        assert_eq!(older.ended(), Some(End::SessionClosed));
        assert_eq!((clients.writes(), newer.ended()), (1, None));
    }
}

#[test]
fn one_that_waited_is_served_if_its_client_is_there_or_nobody_newer_wrote() {
    let clients = Clients::new();
    let (first, older, newer) = (shake_hands(), shake_hands(), shake_hands());
    let mut newer = clients.join(&newer, Hangup::No);
    // An older connection's write is no reason: what hung up here came after it.
    let mut first = clients.join(&first, Hangup::No);
    write(&mut first);
    let mut left = clients.join(&older, Hangup::Half);
    assert_eq!(left.ended(), None);
    write(&mut left);
    drop(left);
    write(&mut newer);
    let mut there = clients.join(&older, Hangup::No);
    write(&mut there);
    assert_eq!((clients.writes(), there.ended()), (4, None));
}

#[test]
fn also_when_the_newer_one_is_gone_by_now() {
    let clients = Clients::new();
    let (older, newer) = (shake_hands(), shake_hands());
    let mut newer = clients.join(&newer, Hangup::No);
    write(&mut newer);
    drop(newer);
    assert_eq!(clients.join(&older, Hangup::Half).ended(), Some(End::SessionClosed));
}
