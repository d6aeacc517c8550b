//! Nodes cut off from each other, in network namespaces with packet filters.

use crate::on_cluster;
use holdfast_tests::cluster::{COME_UP_MAX, Cluster, Setup, VOLUME};
use holdfast_tests::verify::client::{Client, Load};
use holdfast_tests::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// Load before, during and after a cut.
const LOAD: Duration = Duration::from_secs(2);
/// Long enough for leases, for the failure detector and for elections.
const CUT: Duration = Duration::from_secs(8);

/// Load on the volume while `act` does something to the network; then everything
/// is read and compared. `act` says where the volume is served at the end.
fn under_load(setup: Setup, act: impl AsyncFn(&Arc<Cluster>, &Client) -> Result<usize>) {
    on_cluster(setup, |cluster, dir| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let load = Load { moves: true, ..Load::default() };
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
            let client = Client::new(load);
            client.serve(cluster.target(0));
            tokio::time::sleep(LOAD).await;
            let engine = act(cluster, &client).await?;
            tokio::time::sleep(LOAD).await;
            client.pause().await;
            let compared = blocking(cluster, move |cluster| cluster.identical(engine)).await?;
            assert!(compared > 0);
            assert!(client.sweep(&cluster.target(engine)).await, "it went away while it was read");
            Ok::<_, Error>(client.report())
        });
        let report = outcome.unwrap_or_else(|error| panic!("{error}\nin {}", dir.display()));
        println!("{report}");
        let verdict = report.verdict(500);
        assert!(verdict.is_ok(), "{verdict:?}\nin {}\n{}", dir.display(), cluster.logs());
    });
}

async fn blocking<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    act: impl FnOnce(&Cluster) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cluster = cluster.clone();
    let done = tokio::task::spawn_blocking(move || act(&cluster)).await;
    done.map_err(|error| Error::Server(error.to_string()))?
}

fn three() -> Setup {
    Setup::three().in_namespaces()
}

/// Operations must have been answered between the two.
async fn goes_on(client: &Client, during: Duration) {
    let before = client.report().operations();
    tokio::time::sleep(during).await;
    let done = client.report().operations() - before;
    assert!(done > 100, "{done} operations in {during:?}");
}

#[test]
fn an_engine_cut_off_from_the_quorum_writes_nothing_and_is_replaced() {
    under_load(three(), async |cluster, client| {
        let network = cluster.network();
        network.cut(0, 1)?;
        network.cut(0, 2)?;
        // Whatever was under way may still be answered; then nothing is.
        tokio::time::sleep(LOAD).await;
        let before = client.report().operations();
        tokio::time::sleep(LOAD).await;
        assert_eq!(client.report().operations(), before, "it answers without a quorum");
        blocking(cluster, |cluster| {
            cluster.cli(1, &["volume", "attach", VOLUME, "--node", cluster.name(1)])?;
            cluster.wait_served(1)
        })
        .await?;
        client.serve(cluster.target(1));
        goes_on(client, LOAD).await;
        network.heal()?;
        Ok(1)
    });
}

#[test]
fn a_replica_that_hears_and_is_not_heard_stops_nothing() {
    under_load(three(), async |cluster, client| {
        cluster.network().cut_one_way(2, 0)?;
        goes_on(client, CUT).await;
        cluster.network().heal()?;
        Ok(0)
    });
}

#[test]
fn a_replica_that_is_heard_and_hears_nothing_stops_nothing() {
    under_load(three(), async |cluster, client| {
        cluster.network().cut_one_way(0, 2)?;
        goes_on(client, CUT).await;
        cluster.network().heal()?;
        Ok(0)
    });
}

#[test]
fn the_metadata_group_is_cut_in_two() {
    under_load(three(), async |cluster, client| {
        let network = cluster.network();
        // First two that both see the third, then one from both others.
        network.cut(1, 2)?;
        goes_on(client, CUT).await;
        network.heal()?;
        network.cut(2, 0)?;
        network.cut(2, 1)?;
        goes_on(client, CUT).await;
        network.heal()?;
        Ok(0)
    });
}

#[test]
fn without_a_metadata_group_attached_volumes_go_on() {
    let mut setup = Setup::three().with(["--voters", "5"]);
    setup.nodes = 5;
    on_cluster(setup, |cluster, _| {
        let show = cluster.json(0, &["volume", "show", VOLUME]).unwrap();
        let holds = |index: usize| {
            let name = cluster.name(index);
            show["replicas"].as_array().unwrap().iter().any(|replica| replica["node"] == name)
        };
        let (with, without): (Vec<usize>, Vec<usize>) = (0..5).partition(|index| holds(*index));
        let engine = with[0];
        cluster.attach(engine).unwrap();
        // Three of five voters, one of three replicas.
        let killed = [without[0], without[1], with[1]];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let client = Client::new(Load { moves: true, ..Load::default() });
            client.serve(cluster.target(engine));
            tokio::time::sleep(LOAD).await;
            for index in killed {
                cluster.kill(index).unwrap();
            }
            goes_on(&client, CUT).await;
            let said = cluster.try_cli(engine, &["volume", "create", "other", "--size", "64MiB"]);
            assert_ne!(said.unwrap().code, 0, "a change without a metadata group");
            for index in killed {
                cluster.start(index).unwrap();
            }
            goes_on(&client, LOAD).await;
            client.pause().await;
            let whole = blocking(cluster, move |cluster| cluster.identical(engine));
            let compared = tokio::time::timeout(2 * COME_UP_MAX, whole).await;
            assert!(compared.unwrap().unwrap() > 0);
            assert!(client.sweep(&cluster.target(engine)).await);
            let verdict = client.report().verdict(500);
            assert!(verdict.is_ok(), "{verdict:?}\n{}", cluster.logs());
        });
    });
}
