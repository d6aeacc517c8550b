//! Clusters that come to be, and nodes that join them.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_is_a_cluster() {
    let world = Arc::new(World::default());
    let mut host = Host::new(&world, 1);
    let group = host.start().await;
    assert_eq!(group.cluster(), None);
    group.form_or_join(vec![]).await.unwrap();
    let cluster = group.cluster().unwrap();
    assert_eq!(group.catalogue().borrow().cluster(), Some(cluster));
    let node = propose(&host, put_node(1)).await.unwrap();
    assert!(matches!(node, Outcome::Node(_)));
    let again = propose(&host, Command::InitCluster { cluster: ClusterId::from_u128(9) }).await;
    assert_eq!(again, Err(ProposeError::Rejected(Rejected::Cluster(cluster))));
    host.stop().await;

    let group = host.start().await;
    assert_eq!(group.cluster(), Some(cluster));
    group.form_or_join(vec!["elsewhere:1".to_owned()]).await.unwrap();
    group.read_barrier(LONG).await.unwrap();
    assert!(group.catalogue().borrow().node(host.id).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_start_together_form_one_cluster_and_serve_on_each() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 3, 3).await;
    for host in &hosts {
        assert_eq!(host.group().cluster(), hosts[0].group().cluster());
        until_voters(host, &[1, 2, 3]).await;
    }
    for (number, host) in (1..).zip(&hosts) {
        propose(host, put_node(number)).await.unwrap();
        let seen = host.group().catalogue().borrow().node(host.id).is_some();
        assert!(seen, "who proposed reads its write");
    }
    for host in &hosts {
        host.group().read_barrier(LONG).await.unwrap();
        assert_eq!(host.group().catalogue().borrow().nodes().count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_form_a_cluster_of_five_voters() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 5, 5).await;
    for host in &hosts {
        until_voters(host, &[1, 2, 3, 4, 5]).await;
    }
    propose(&hosts[4], put_node(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_of_three_forms_nothing_and_a_late_third_joins() {
    let world = Arc::new(World::default());
    let mut hosts: Vec<Host> = (1..=3).map(|number| Host::new(&world, number)).collect();
    let seeds = seeds(&hosts);
    hosts[2].go(&seeds).await;
    // Longer than it would wait for others before it settled for a majority.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(hosts[2].group().cluster(), None);
    let unavailable = hosts[2].group().propose(put_node(1), Duration::from_millis(100)).await;
    assert!(matches!(unavailable, Err(ProposeError::Unavailable(_))), "{unavailable:?}");

    hosts[1].go(&seeds).await;
    part_of(&hosts[1]).await;
    part_of(&hosts[2]).await;
    propose(&hosts[1], put_node(1)).await.unwrap();

    hosts[0].go(&seeds).await;
    part_of(&hosts[0]).await;
    assert_eq!(hosts[0].group().cluster(), hosts[2].group().cluster());
    for host in &hosts {
        until_voters(host, &[1, 2, 3]).await;
    }
    propose(&hosts[0], mark(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_beyond_the_seeds_join_through_any_member_as_learners() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 3, 3).await;
    propose(&hosts[0], put_node(1)).await.unwrap();
    for (number, through) in [(4, 0), (5, 2)] {
        let mut host = Host::new(&world, number);
        host.go(&[hosts[through].address.clone()]).await;
        part_of(&host).await;
        propose(&host, mark(number)).await.unwrap();
        assert!(marks(host.group()).contains(&number));
        let status = host.status();
        assert!(status.learners.contains(&host.id), "{status:?}");
        assert_eq!(status.voters.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_grows_to_three_voters() {
    let world = Arc::new(World::default());
    let mut first = Host::new(&world, 1);
    first.go(&[]).await;
    part_of(&first).await;
    let mut others = vec![Host::new(&world, 2), Host::new(&world, 3)];
    for host in &mut others {
        host.go(&[first.address.clone()]).await;
        part_of(host).await;
    }
    until_voters(&first, &[1, 2, 3]).await;
    first.stop().await;
    propose(&others[0], put_node(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    hosts[1].stop().await;
    hosts[1].address = "moved:1".to_owned();
    hosts[1].go(&[]).await;
    part_of(&hosts[1]).await;
    until("the new address", || {
        hosts[0].status().addresses[&hosts[1].id] == "moved:1"
            && hosts[0].status().voters.len() == 3
    })
    .await;
    // All three at once, a lone one too: it leads, and tells itself.
    let mut lone = Host::new(&Arc::new(World::default()), 7);
    lone.go(&[]).await;
    part_of(&lone).await;
    lone.stop().await;
    lone.address = "other:1".to_owned();
    lone.go(&[]).await;
    part_of(&lone).await;
    assert_eq!(lone.status().addresses[&lone.id], "other:1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_do_not_mix() {
    let world = Arc::new(World::default());
    let hosts = cluster(&world, 1, 1).await;
    let mut stranger = Host::new(&world, 2);
    stranger.go(&[]).await;
    part_of(&stranger).await;
    assert_ne!(stranger.group().cluster(), hosts[0].group().cluster());
    for request in
        [message::Request::ReadPoint, message::Request::Join { address: "x:1".to_owned() }]
    {
        let shared = &stranger.group().inner.shared;
        let answer = shared.ask(Some(hosts[0].id), "h1:1", request, LONG).await;
        let error = answer.expect_err("refused").to_string();
        assert!(error.contains("another cluster"), "{error}");
    }
    for garbage in [vec![], vec![1], vec![9, 9, 9], vec![1; 100]] {
        let answer = hosts[0].group().handle(garbage).await;
        let answer: message::Answer = message::decode(&answer).unwrap();
        assert!(matches!(answer, message::Answer::Refused(_)), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_store_does_not_come_back_under_its_id() {
    let world = Arc::new(World::default());
    let mut hosts = cluster(&world, 3, 3).await;
    let seeds = seeds(&hosts);
    hosts[0].stop().await;
    hosts[0].dir = tempfile::tempdir().unwrap();
    let group = hosts[0].start().await;
    let lost = tokio::time::timeout(LONG, group.form_or_join(seeds)).await.expect("an answer");
    assert!(matches!(lost, Err(MetaError::LostState { .. })), "{lost:?}");
}
