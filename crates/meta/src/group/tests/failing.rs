//! Nodes that die, are cut off, are wiped, are removed.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_followed_by_another() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    let leader = leader_of(&hosts.iter().collect::<Vec<_>>()).await.id;
    let at = hosts.iter().position(|host| host.id == leader).unwrap();
    let before = hosts[at].status().term;
    hosts[at].stop().await;
    let mut dead = hosts.remove(at);
    for (number, host) in (10..).zip(&hosts) {
        propose(host, mark(number)).await.unwrap();
    }
    assert!(hosts[0].status().term > before);
    dead.go(&[]).await;
    dead.group().read_barrier(LONG).await.unwrap();
    assert_eq!(marks(dead.group()), [10, 11]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_learns_what_it_missed_and_reads_nothing_stale() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 3, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    let all: Vec<&Host> = hosts.iter().collect();
    let leader = leader_of(&all).await;
    let others: Vec<&Host> = all.iter().copied().filter(|host| host.id != leader.id).collect();
    let (cut_off, witness) = (others[0], others[1]);
    world.isolate(cut_off, &[leader, witness]);
    propose(witness, mark(1)).await.unwrap();
    let short = Duration::from_millis(500);
    let stale = cut_off.group().read_barrier(short).await;
    assert!(matches!(stale, Err(ProposeError::Unavailable(_))), "{stale:?}");
    let unknown = cut_off.group().propose(mark(2), short).await;
    assert!(unknown.is_err(), "{unknown:?}");
    assert!(marks(cut_off.group()).is_empty());
    world.heal();
    cut_off.group().read_barrier(LONG).await.unwrap();
    assert!(marks(cut_off.group()).contains(&1));

    // Now the leader itself: it can neither agree nor say what is agreed.
    let leader = leader_of(&all).await;
    let others: Vec<&Host> = all.iter().copied().filter(|host| host.id != leader.id).collect();
    world.isolate(leader, &others);
    propose(others[0], mark(3)).await.unwrap();
    let stale = leader.group().read_barrier(short).await;
    assert!(matches!(stale, Err(ProposeError::Unavailable(_))), "{stale:?}");
    let unknown = leader.group().propose(mark(4), short).await;
    assert!(unknown.is_err(), "{unknown:?}");
    world.heal();
    leader.group().read_barrier(LONG).await.unwrap();
    assert!(marks(leader.group()).contains(&3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_agrees_on_nothing() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    propose(&hosts[2], put_node(1)).await.unwrap();
    hosts[0].stop().await;
    hosts[1].stop().await;
    let none = hosts[2].group().propose(mark(1), Duration::from_secs(3)).await;
    assert!(matches!(none, Err(ProposeError::Unknown | ProposeError::Unavailable(_))), "{none:?}");
    assert!(marks(hosts[2].group()).is_empty());
    hosts[0].go(&[]).await;
    propose(&hosts[2], mark(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_answered_is_there_after_all_were_down() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    for number in 1..=20 {
        propose(&hosts[number as usize % 3], mark(number)).await.unwrap();
    }
    let cluster = hosts[0].group().cluster();
    for host in &mut hosts {
        host.stop().await;
    }
    // In another order, and without any seeds.
    for host in hosts.iter_mut().rev() {
        host.go(&[]).await;
    }
    for host in &hosts {
        part_of(host).await;
        assert_eq!(host.group().cluster(), cluster);
        host.group().read_barrier(LONG).await.unwrap();
        assert_eq!(marks(host.group()), (1..=20).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_comes_back_as_a_learner_and_takes_its_old_vote() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    let seeds = seeds(&hosts);
    for number in 1..=3 {
        propose(&hosts[0], put_node(number)).await.unwrap();
    }
    hosts[2].wipe(13).await;
    hosts[2].go(&seeds).await;
    part_of(&hosts[2]).await;
    for host in &hosts {
        until_voters(host, &[1, 2, 13]).await;
    }
    let old = hosts[2].group().catalogue().borrow().node_by_name("n3").unwrap().clone();
    propose(&hosts[2], Command::PutNode(Node { id: hosts[2].id, ..old })).await.unwrap();
    // It counts: with it, the group does without another.
    hosts[0].stop().await;
    propose(&hosts[2], mark(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_voter_is_removed_and_replaced_and_does_not_come_back() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    let mut spare = Host::new(&world, 4);
    spare.go(&seeds(&hosts)).await;
    part_of(&spare).await;
    for number in 1..=4 {
        propose(&hosts[0], put_node(number)).await.unwrap();
    }
    hosts[1].stop().await;
    hosts[0].group().remove_node(hosts[1].id, false, LONG).await.unwrap();
    until_voters(&hosts[0], &[1, 3, 4]).await;
    assert!(hosts[0].group().catalogue().borrow().node(hosts[1].id).is_none());
    // Again does no harm.
    hosts[0].group().remove_node(hosts[1].id, false, LONG).await.unwrap();

    hosts[1].go(&[]).await;
    until("it is told", || hosts[1].status().failed.is_some()).await;
    let failed = hosts[1].status().failed.unwrap();
    assert!(failed.contains("removed"), "{failed}");
    // Its candidacies disturb nobody, and it is not let in again.
    propose(&spare, mark(1)).await.unwrap();
    let vote = crate::raft::Vote::new(1_000_000, crate::raft::RaftId(hosts[1].id)).into();
    let join = message::Request::Join { address: hosts[1].address.clone() };
    for request in [message::Request::Vote { vote, last: None }, join] {
        let shared = &hosts[1].group().inner.shared;
        let answer = shared.ask(Some(spare.id), &spare.address, request, LONG).await;
        let error = answer.expect_err("refused").to_string();
        assert!(error.contains("removed"), "{error}");
    }
    assert!(spare.status().term < 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_takes_itself_out() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 3, 3).await;
    for number in 1..=3 {
        propose(&hosts[0], put_node(number)).await.unwrap();
    }
    let all: Vec<&Host> = hosts.iter().collect();
    let leader = leader_of(&all).await;
    let others: Vec<&Host> = all.iter().copied().filter(|host| host.id != leader.id).collect();
    others[0].group().remove_node(leader.id, false, LONG).await.unwrap();
    let two = |status: MetaStatus| status.voters.len() == 2 && !status.changing;
    until("two voters", || others.iter().all(|host| two(host.status()))).await;
    let next = leader_of(&others).await;
    assert_ne!(next.id, leader.id);
    propose(others[1], put_node(9)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_stays() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 1, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    let last = hosts[0].group().remove_node(hosts[0].id, true, LONG).await;
    assert!(matches!(last, Err(ProposeError::Rejected(_))), "{last:?}");
}

/// The proposer hears nothing of the leader's answers for a while, and asks again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_proposal_is_carried_out_once_and_gets_the_first_answer() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 3, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    let all: Vec<&Host> = hosts.iter().collect();
    let leader = leader_of(&all).await;
    let proposer = all.iter().copied().find(|host| host.id != leader.id).unwrap();
    world.deaf.lock().unwrap().insert(proposer.address.clone());
    let group = proposer.group().clone();
    // Rejected the second time, were it carried out twice: the id is taken.
    let create = Command::CreateVolume {
        volume: holdfast_types::VolumeId::from_u128(1),
        name: "once".parse().unwrap(),
        size_bytes: 1 << 20,
        logical_block_bytes: 4096,
        history: holdfast_types::HistoryId::from_u128(1),
        members: vec![crate::Member {
            replica: holdfast_types::ReplicaId::from_u128(1),
            node: NodeId::from_u128(1),
            disk: DiskId::from_u128(1),
            ready: false,
        }],
        replicas: 1,
        min_replicas: 1,
    };
    propose(leader, mark(1)).await.unwrap();
    let asked = tokio::spawn(async move { group.propose(create, LONG).await });
    until("carried out", || leader.group().catalogue().borrow().volumes().count() == 1).await;
    world.deaf.lock().unwrap().clear();
    let answer = asked.await.unwrap();
    assert!(matches!(answer, Ok(Outcome::Volume(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_more_than_the_log_holds_gets_a_snapshot() {
    let world = Arc::new(World::default());
    let mut hosts: Vec<Host> = (1..=3).map(|number| Host::new(&world, number)).collect();
    let seeds = seeds(&hosts);
    for host in &mut hosts {
        host.tuning = Tuning { snapshot_logs: 20, keep_logs: 5 };
        host.go(&seeds).await;
    }
    for host in &hosts {
        part_of(host).await;
    }
    propose(&hosts[0], put_node(1)).await.unwrap();
    hosts[2].stop().await;
    for number in 1..=100 {
        propose(&hosts[0], mark(number)).await.unwrap();
    }
    // Whoever leads, the log that host 3 needs is gone.
    let metrics = |host: &Host| host.group().inner.raft.metrics().borrow().clone();
    for host in &hosts[..2] {
        until("purged", || metrics(host).purged.is_some_and(|purged| purged.index > 50)).await;
    }
    hosts[2].go(&[]).await;
    hosts[2].group().read_barrier(LONG).await.unwrap();
    assert_eq!(marks(hosts[2].group()), (1..=100).collect::<Vec<_>>());
    until("snapshot", || metrics(&hosts[2]).snapshot.is_some_and(|at| at.index > 50)).await;
    // And it is there after a restart, from its own store.
    hosts[2].stop().await;
    hosts[2].go(&[]).await;
    hosts[2].group().read_barrier(LONG).await.unwrap();
    assert_eq!(marks(hosts[2].group()).len(), 100);
}
