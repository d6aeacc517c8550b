//! `holdfast node`, three of them started by hand.

use holdfast_tests::cluster::{COME_UP_MAX, Cluster, Setup, VOLUME};
use serde_json::Value;
use std::fs;

const BYTES: u64 = 16 << 20;

fn prepare(dir: &tempfile::TempDir) -> Cluster {
    Cluster::prepare(dir.path(), Setup::three()).unwrap()
}

fn nodes(status: &Value) -> &Vec<Value> {
    status["nodes"].as_array().unwrap()
}

fn online(status: &Value) -> usize {
    nodes(status).iter().filter(|node| node["online"] == true).count()
}

/// Two of three seeds are a majority: they form the cluster, and the third finds it.
#[test]
fn the_third_joins_late_and_order_does_not_matter() {
    for order in [[2, 0, 1], [1, 2, 0]] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = prepare(&dir);
        cluster.start(order[0]).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let alone = cluster.json(order[0], &["status"]).unwrap();
        assert!(alone["cluster"]["id"].is_null(), "one of three is no majority: {alone:#}");
        let made = cluster.try_cli(order[0], &["volume", "create", "x", "--size", "1GiB"]).unwrap();
        assert_eq!(made.code, 1, "{made:?}");
        cluster.start(order[1]).unwrap();
        let two = |status: &Value| status["cluster"]["id"].is_string() && online(status) == 2;
        let formed = cluster.wait(order[0], &["status"], COME_UP_MAX, "two nodes", two).unwrap();
        cluster.start(order[2]).unwrap();
        cluster.wait_formed().unwrap();
        for index in 0..3 {
            let status = cluster.json(index, &["status"]).unwrap();
            assert_eq!(status["cluster"]["id"], formed["cluster"]["id"], "one cluster");
        }
        // Restarted in any order, all at once.
        for index in 0..3 {
            cluster.kill(index).unwrap();
        }
        for index in order {
            cluster.start(index).unwrap();
        }
        cluster.wait_formed().unwrap();
        let status = cluster.json(0, &["status"]).unwrap();
        assert_eq!(status["cluster"]["id"], formed["cluster"]["id"], "still");
    }
}

/// A node's id lives with its data.
#[test]
fn a_wiped_node_comes_back_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_volume(dir.path(), Setup::three(), BYTES).unwrap();
    let id = |status: &Value, name: &str| {
        let node =
            nodes(status).iter().rfind(|node| node["name"] == name && node["online"] == true);
        node.map(|node| node["id"].as_str().unwrap().to_owned())
    };
    let before = id(&cluster.json(0, &["status"]).unwrap(), "node3").unwrap();
    cluster.kill(2).unwrap();
    cluster.start(2).unwrap();
    cluster.wait_formed().unwrap();
    assert_eq!(id(&cluster.json(0, &["status"]).unwrap(), "node3").unwrap(), before);
    cluster.kill(2).unwrap();
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    cluster.start(2).unwrap();
    // It learns first; the vote of the node that it replaced is its own soon after.
    let votes = |status: &Value| {
        let new = id(status, "node3").filter(|now| *now != before);
        let role = |id: &str| nodes(status).iter().find(|n| n["id"] == id).map(|n| &n["role"]);
        new.is_some_and(|new| role(&new).is_some_and(|role| *role == "voter" || *role == "leader"))
            && role(&before).is_none_or(|role| *role == "none")
    };
    let status = cluster.wait(0, &["status"], COME_UP_MAX, "the new node's vote", votes).unwrap();
    println!("{status:#}");
    cluster.wait_served(0).unwrap();
}

#[test]
fn nodes_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_volume(dir.path(), Setup::three(), BYTES).unwrap();
    cluster.wait_whole(0).unwrap();
    let said = cluster.try_cli(0, &["node", "remove", "node3"]).unwrap();
    assert_eq!(said.code, 1, "it holds a replica that counts: {said:?}");
    let said = cluster.try_cli(0, &["node", "remove", "nobody"]).unwrap();
    assert!(said.code == 1 && said.err.contains("nobody"), "{said:?}");
    let said = cluster.try_cli(0, &["volume", "delete", VOLUME]).unwrap();
    assert!(said.code == 1 && said.err.contains("attached"), "{said:?}");
    cluster.cli(1, &["volume", "detach", VOLUME]).unwrap();
    cluster.cli(2, &["volume", "delete", VOLUME]).unwrap();
    let gone = |volumes: &Value| volumes.as_array().is_some_and(Vec::is_empty);
    cluster.wait(0, &["volume", "list"], COME_UP_MAX, "no volume", gone).unwrap();
    cluster.stop(2).unwrap();
    cluster.cli(0, &["node", "remove", "node3"]).unwrap();
    let two = |nodes: &Value| nodes.as_array().is_some_and(|nodes| nodes.len() == 2);
    cluster.wait(0, &["node", "list"], COME_UP_MAX, "two nodes", two).unwrap();
}
