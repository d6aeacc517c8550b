//! Which node a command asks.

use crate::args::ApiArgs;
use holdfast_api::{
    SOCKET_NAME,
    client::{Client, ClientError, Target},
};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// What `--api` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(Target);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A node that runs in the same environment reads HOLDFAST_API as well.
        if text == "none" {
            return Err("the node serves its API on its unix socket only; give its path".into());
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if text.starts_with("unix:") || (path.contains('/') && !text.contains("://")) {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("unix: wants a path, such as unix:/run/holdfast/api.sock".to_owned());
            }
            return Ok(Self(Target::Unix(path.into())));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let target = if address.contains("://") { Err(String::new()) } else { address.parse() };
        target.map(Self).map_err(|_| {
            format!("{text:?} is no API address; give http://HOST:PORT or the path of a socket")
        })
    }
}

/// The sockets of the nodes that may run on a data directory: the directory's own, and
/// those of a quick start's nodes.
fn sockets(data_dir: &Path) -> Vec<PathBuf> {
    let own = data_dir.join(SOCKET_NAME);
    let nodes = crate::layout::node_dirs(data_dir).into_iter().map(|dir| dir.join(SOCKET_NAME));
    std::iter::once(own).chain(nodes).filter(|socket| socket.exists()).collect()
}

impl ApiArgs {
    /// A client of the first node found that answers.
    pub(crate) async fn client(&self) -> Result<Client, String> {
        if let Some(Endpoint(target)) = &self.api {
            return Ok(Client::new(target.clone()));
        }
        let dir = &self.dir.data_dir;
        let sockets = sockets(dir);
        for socket in &sockets {
            let client = Client::new(Target::Unix(socket.clone()));
            match client.version().await {
                Err(ClientError::NotRunning { .. }) => {}
                _ => return Ok(client),
            }
        }
        Err(format!(
            "no node runs on the data directory {}; start one with `holdfast`, or say with --data-dir or --api where it is",
            dir.display()
        ))
    }

    /// Whether someone said whom to ask.
    pub(crate) fn is_given(&self) -> bool {
        self.api.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_are_told_apart() {
        let parsed = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.0);
        for path in ["/run/x.sock", "unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(parsed(path), Ok(Target::Unix("/run/x.sock".into())), "{path}");
        }
        assert_eq!(parsed("data/api.sock"), Ok(Target::Unix("data/api.sock".into())));
        for tcp in ["n1:10829", "http://n1:10829", "http://n1:10829/"] {
            assert_eq!(parsed(tcp), Ok(Target::Tcp("n1:10829".into())), "{tcp}");
        }
        for bad in ["", "none", "unix:", "n1", "https://n1:1", "ftp://x", ":1"] {
            assert!(parsed(bad).is_err(), "{bad}: {:?}", parsed(bad));
        }
    }
}
