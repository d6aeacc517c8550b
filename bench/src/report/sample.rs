//! An outcome as small as one can be that has all there is.

use crate::outcome::*;

/// A block with a failed result.
pub(super) fn block() -> Block {
    let columns = [
        ("holdfast-x3", "Holdfast, 3 replicas", 3, true),
        ("qemu-nbd", "qemu-nbd", 1, false),
        ("ceph", "Ceph", 3, true),
    ];
    let column = |(id, title, copies, durable): (&str, &str, u32, bool)| Column {
        id: id.to_owned(),
        title: title.to_owned(),
        copies,
        durable,
        version: Some("1.0".to_owned()),
        setup: "defaults".to_owned(),
        absent: (id == "ceph").then(|| "not installed: ceph-osd".to_owned()),
        no_syscalls: (id == "qemu-nbd").then(|| "no tracepoints".to_owned()),
    };
    let mut failed = result("holdfast-x3", &[]);
    failed.failed = Some("lost".to_owned());
    failed.samples.push(figures(1.0));
    Block {
        title: "Side by side".to_owned(),
        interleaved: true,
        columns: columns.map(column).into(),
        jobs: vec![
            JobOutcome {
                job: job("4k random write QD32", "randwrite", 4 << 10),
                results: vec![
                    result("holdfast-x3", &[2_900.0, 3_000.0, 3_100.0]),
                    result("qemu-nbd", &[2_000.0]),
                ],
            },
            JobOutcome {
                job: job("1 MiB write QD8", "write", 1 << 20),
                results: vec![large("holdfast-x3", 400.0), large("qemu-nbd", 1_000.0)],
            },
            JobOutcome {
                job: job("4k random read QD1", "randread", 4 << 10),
                results: vec![failed, result("qemu-nbd", &[7_000.0])],
            },
        ],
    }
}

/// All of it.
pub(super) fn outcome() -> Outcome {
    Outcome {
        machine: Machine {
            cpu: "Model T".to_owned(),
            cores: 2,
            versions: vec![("fio".to_owned(), "fio-3.33".to_owned())],
            ..Machine::default()
        },
        plan: Plan {
            rounds: 3,
            seconds: 10.0,
            area_bytes: 4 << 30,
            logged_bytes: 1 << 30,
            seconds_max: 60.0,
            holdfast_args: Vec::new(),
        },
        blocks: vec![block(), block()],
        scale: Some(scale()),
    }
}

/// One figure and one curve.
pub(super) fn scale() -> ScaleOutcome {
    let series = |name: &str, points: &[(f64, f64)]| Series {
        name: name.to_owned(),
        points: points.to_vec(),
    };
    ScaleOutcome {
        facts: vec![Fact {
            title: "idle CPU of a node".to_owned(),
            value: 1.5,
            unit: "% of one core".to_owned(),
            below: Some(2.0),
        }],
        curves: vec![Curve {
            id: "idle-cpu".to_owned(),
            title: "Idle CPU by volumes".to_owned(),
            x: "volumes".to_owned(),
            y: "CPU, % of one core".to_owned(),
            x_logarithmic: true,
            series: vec![
                series("node1", &[(1.0, 0.1), (1_000.0, 1.5)]),
                series("node2", &[(1_000.0, 1.4)]),
            ],
            remark: "It grows with the timers.".to_owned(),
        }],
    }
}

fn job(title: &str, rw: &str, block_bytes: u64) -> Job {
    Job {
        id: title.replace(' ', "-"),
        title: title.to_owned(),
        rw: rw.to_owned(),
        block_bytes,
        depth: 32,
        reads_percent: None,
        fsync_every: 0,
        connections: 1,
        volumes: 1,
    }
}

fn figures(iops: f64) -> Figures {
    let process = |name: &str, cpu_us_per_op, peak: u64| ProcessFigures {
        name: name.to_owned(),
        cpu_us_per_op,
        written_per_byte: Some(2.4),
        peak_rss_bytes: peak << 20,
    };
    Figures {
        iops,
        megabytes_per_s: 12.34,
        latency: Latency { mean_us: 10.0, p50_us: 9.0, p99_us: 20.0, p99_9_us: 45.0 },
        cpu_us_per_op: Some(40.0),
        client_cpu_us_per_op: 7.0,
        written_per_byte: Some(7.1),
        peak_rss_bytes: 96 << 20,
        processes: vec![process("node1", 20.0, 64), process("node2", 20.0, 32)],
        ..Figures::default()
    }
}

fn result(column: &str, iops: &[f64]) -> JobResult {
    let samples: Vec<Figures> = iops.iter().map(|&iops| figures(iops)).collect();
    let median = samples.get(samples.len() / 2).cloned();
    JobResult { column: column.to_owned(), median, samples, failed: None }
}

fn large(column: &str, megabytes_per_s: f64) -> JobResult {
    let mut result = result(column, &[megabytes_per_s]);
    result.samples[0].megabytes_per_s = megabytes_per_s;
    result.median = result.samples.first().cloned();
    result
}
