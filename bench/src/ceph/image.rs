//! What fio writes to: images in the pool.

use super::cluster::POOL;
use super::config::Config;
use crate::subject::Volume;
use holdfast_tests::{Result, tools};

/// What an image can do. Without an exclusive lock several connections may write to one image, and
/// none of them asks for it.
const FEATURES: &str = "layering";

/// Makes an image of `bytes`.
pub(super) fn make(config: &Config, number: u32, bytes: u64) -> Result<Volume> {
    let (name, size) = (format!("volume{number}"), format!("{bytes}B"));
    let mut rbd = config.tool("rbd");
    rbd.args(["create", "--pool", POOL, "--image-feature", FEATURES, "--size", &size, &name]);
    tools::succeed(&mut rbd)?;
    Ok(Volume {
        fio_args: vec![
            "--ioengine=rbd".to_owned(),
            "--clientname=admin".to_owned(),
            format!("--pool={POOL}"),
            format!("--rbdname={name}"),
        ],
        environment: config.environment().map(|(name, value)| (name.to_owned(), value)).into(),
    })
}
