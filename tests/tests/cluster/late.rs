//! A write that was sent on a connection since given up never overwrites what the
//! client wrote later on a new one, once the server can know that the old one is closed.

use crate::on_cluster;
use holdfast_tests::cluster::{Setup, VOLUME};
use holdfast_tests::nbd::{Connection, Request, wire};
use rustix::process::Signal;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

const LEN: usize = 4096;
const ROUNDS: u8 = 40;

fn request(data: &[u8]) -> Request<'_> {
    Request { command: wire::CMD_WRITE, flags: 0, offset: 0, len: LEN as u32, data }
}

#[test]
fn a_write_of_a_closed_connection_comes_before_the_next_ones_or_never() {
    on_cluster(Setup::three(), |cluster, _| {
        let target = cluster.target(0);
        let endpoint = &target.endpoints[0];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            for round in 1..=ROUNDS {
                let old = Connection::open(endpoint, VOLUME).await.unwrap();
                // The node stands still while the write arrives and its connection closes.
                cluster.freeze(0).unwrap();
                let (early, later) = (vec![round; LEN], vec![round + 100; LEN]);
                let sent = timeout(Duration::from_millis(10), old.call(request(&early))).await;
                assert!(sent.is_err(), "a stopped node answered: {sent:?}");
                drop(old);
                let new = Connection::open(endpoint, VOLUME);
                let resume = async {
                    sleep(Duration::from_millis(u64::from(round % 4))).await;
                    cluster.signal(0, Signal::CONT).unwrap();
                };
                let (new, ()) = tokio::join!(new, resume);
                let new = new.unwrap();
                new.call(request(&later)).await.unwrap();
                for _ in 0..4 {
                    let found = new.read(0, LEN as u32).await.unwrap();
                    assert_eq!(found[0], round + 100, "the old write came after the new one");
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
        cluster.identical(0).unwrap();
    });
}
