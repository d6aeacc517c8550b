//! `holdfast version`

use super::show;
use crate::{
    args::{ApiArgs, Output},
    failure::Failure,
};
use holdfast_api::types::Version;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Versions {
    /// This program.
    version: &'static str,
    /// The node that answers.
    node: Option<Version>,
}

/// Prints the program's version, and the node's if one answers. That none does is an error
/// only when one was named.
pub(crate) async fn run(api: &ApiArgs, output: Output) -> Result<ExitCode, Failure> {
    let node = match api.client().await {
        Ok(client) => Some(client.version().await?),
        Err(_) if !api.is_given() => None,
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { version: env!("CARGO_PKG_VERSION"), node };
    show(&versions, output, |versions| {
        let mut text = format!("holdfast {}\n", versions.version);
        if let Some(node) = &versions.node {
            text += &format!("node     {} (protocol {})\n", node.version, node.protocol);
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}
