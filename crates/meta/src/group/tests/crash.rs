//! A process that is killed while it proposes: what it was answered is there when it is opened again.

use super::*;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Process, Stdio};

/// Tells the test binary that it is the child, and where its data is.
const DIR: &str = "HOLDFAST_META_CRASH_DIR";
/// How often the child is killed.
const ROUNDS: u128 = 12;

fn host(dir: &std::path::Path) -> Host {
    let world = Arc::new(World::default());
    let mut host = Host::new(&world, 1);
    // Snapshots and purges come in between.
    host.tuning = Tuning { snapshot_logs: 30, keep_logs: 5 };
    std::os::unix::fs::symlink(dir, host.dir.path().join("meta")).unwrap();
    host
}

/// Not a test by itself: the body of the child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut host = host(dir.as_ref());
    host.go(&[]).await;
    part_of(&host).await;
    propose(&host, put_node(1)).await.unwrap();
    let first = marks(host.group()).last().map_or(1, |last| last + 1);
    for number in first.. {
        propose(&host, mark(number)).await.unwrap();
        println!("answered {number}");
    }
}

fn start(dir: &std::path::Path) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "group::tests::crash::child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("meta");
    std::fs::create_dir(&data).unwrap();
    let mut answered = 0;
    for round in 0..ROUNDS {
        let mut child = start(&data);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A few more each time, so that kills fall before, into and after snapshots.
        let enough = 5 + 7 * round as usize;
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            line.split_once("answered ").and_then(|(_, number)| number.parse::<u128>().ok())
        });
        let mut seen = 0;
        for number in numbers {
            assert_eq!(number, if answered == 0 { 1 } else { answered.max(number) });
            answered = number;
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
        assert!(seen >= enough, "the child ended by itself in round {round}");
        child.wait().unwrap();
    }
    let mut host = host(&data);
    host.go(&[]).await;
    part_of(&host).await;
    host.group().read_barrier(LONG).await.unwrap();
    let marks = marks(host.group());
    assert_eq!(marks, (1..=marks.len() as u128).collect::<Vec<_>>(), "a gap");
    assert!(marks.len() as u128 >= answered, "{} of {answered}", marks.len());
    host.stop().await;
}
