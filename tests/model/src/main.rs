//! scratch
use holdfast_model::{Bounds, Protocol};
use stateright::{Checker, Model};
fn main() {
    let a: Vec<u8> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let b = Bounds {
        members: a[0],
        engines: a[1],
        writes: a[2],
        crashes: a[3],
        changes: a[4],
        damages: a[5],
        lease_ticks: a[6],
        grants_travel: a[7] > 0,
        flushes: a[8] > 0,
        applies: a[9] > 0,
        chooses_again: a[10] > 0,
        colocated: a[11] > 0,
        mutant: None,
    };
    let t = std::time::Instant::now();
    let c = Protocol::new(b)
        .checker()
        .threads(2)
        .target_state_count(200_000_000)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .spawn_bfs();
    let c = c.join();
    println!(
        "unique {} total {} depth {} in {:?} done {}",
        c.unique_state_count(),
        c.state_count(),
        c.max_depth(),
        t.elapsed(),
        c.is_done()
    );
    for (name, path) in c.discoveries() {
        println!("{name}");
        if name.starts_with('I') {
            for (s, a) in path.into_vec() {
                for r in &s.replicas {
                    println!(
                        "    {:?} d{} p{}/{} {:?} {:?} {:?}",
                        r.log,
                        r.durable,
                        r.promised,
                        r.promised_on_disk,
                        r.member,
                        r.health,
                        r.views
                            .iter()
                            .map(|v| format!(
                                "{:?}{}{}{}",
                                v.link, v.matched, v.current as u8, v.next as u8
                            ))
                            .collect::<Vec<_>>()
                    );
                }
                for e in s.engines.iter().filter(|e| e.is_alive()) {
                    println!("    {e:?}");
                }
                println!("  committed {:?}", s.committed);
                println!("{a:?}");
            }
        }
    }
}
