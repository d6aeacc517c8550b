//! The jobs: what every server is put under.

use crate::outcome::Job;

/// Volumes of the job with many.
pub const VOLUMES: u32 = 8;
/// Connections of the job with many.
const CONNECTIONS: u32 = 4;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All of them, in the order in which they run. Those on one volume come first.
#[must_use]
pub fn all() -> Vec<Job> {
    let random = |rw, depth| job(rw, 4 * KIB, depth);
    vec![
        random("randwrite", 1),
        random("randwrite", 32),
        random("randwrite", 128),
        Job { fsync_every: 1, ..random("randwrite", 1) },
        random("randread", 1),
        random("randread", 32),
        Job { reads_percent: Some(70), ..random("randrw", 32) },
        job("randwrite", 64 * KIB, 16),
        job("write", MIB, 8),
        job("read", MIB, 8),
        Job { connections: CONNECTIONS, ..random("randwrite", 32 / CONNECTIONS) },
        Job { volumes: VOLUMES, ..random("randwrite", 8) },
    ]
    .into_iter()
    .map(named)
    .collect()
}

/// Some in which everything that a job can ask for occurs.
#[must_use]
pub fn smoke() -> Vec<Job> {
    let is_one = |job: &Job| {
        let is_special = job.fsync_every > 0 || job.reads_percent.is_some();
        is_special || job.connections > 1 || job.volumes > 1 || job.rw == "read"
    };
    all().into_iter().filter(is_one).collect()
}

/// Writes all of the area once, so that no later job meets what was never written.
#[must_use]
pub fn fill(volumes: u32) -> Job {
    Job { volumes, ..named(job("write", MIB, 8)) }
}

fn job(rw: &str, block_bytes: u64, depth: u32) -> Job {
    Job {
        id: String::new(),
        title: String::new(),
        rw: rw.to_owned(),
        block_bytes,
        depth,
        reads_percent: None,
        fsync_every: 0,
        connections: 1,
        volumes: 1,
    }
}

/// Gives it the names that follow from what it does.
fn named(mut job: Job) -> Job {
    let block = match job.block_bytes {
        bytes if bytes >= MIB => format!("{}M", bytes / MIB),
        bytes => format!("{}k", bytes / KIB),
    };
    let what = match job.rw.as_str() {
        "randwrite" => "random write",
        "randread" => "random read",
        "randrw" => "random mix",
        rw => rw,
    };
    let depth = job.depth * job.connections;
    let (mut title, mut id) = (format!("{block} {what}"), format!("{block}-{}", job.rw));
    if let Some(reads) = job.reads_percent {
        title += &format!(" {reads}/{}", 100 - reads);
        id += &reads.to_string();
    }
    title += &format!(" QD{depth}");
    id += &format!("-qd{depth}");
    if job.fsync_every > 0 {
        title += " + fsync";
        id += "-fsync";
    }
    if job.connections > 1 {
        title += &format!(", {} connections", job.connections);
        id += &format!("-{}conn", job.connections);
    }
    if job.volumes > 1 {
        title += &format!(" each, {} volumes", job.volumes);
        id += &format!("-{}vol", job.volumes);
    }
    job.title = title;
    job.id = id.to_lowercase();
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_job_has_a_name_of_its_own() {
        let jobs = all();
        let ids: BTreeSet<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        assert_eq!(ids.len(), jobs.len());
        for id in ["4k-randwrite-qd1", "4k-randwrite-qd1-fsync", "1m-read-qd8", "4k-randrw70-qd32"]
        {
            assert!(ids.contains(id), "{id} in {ids:?}");
        }
        let many = jobs.iter().find(|job| job.connections > 1).unwrap();
        assert_eq!(many.title, "4k random write QD32, 4 connections");
    }

    #[test]
    fn jobs_on_one_volume_come_first() {
        assert!(all().is_sorted_by_key(|job| job.volumes));
    }
}
