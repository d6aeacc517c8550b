//! Where a node listens, and what it tells others to connect to.

use crate::{Config, DataDir, NodeError};
use holdfast_io::net::{Address, Listener};
use std::net::SocketAddr;

/// Every listener of a node, bound before anything is written.
pub(crate) struct Listeners {
    /// The unix socket, then TCP if it is on.
    pub(crate) nbd: Vec<Listener>,
    /// The unix socket, then TCP if it is on.
    pub(crate) api: Vec<Listener>,
    pub(crate) peer: Option<Listener>,
}

/// What others are told to connect to; empty where nothing listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) peer: String,
    pub(crate) api: String,
    pub(crate) nbd: String,
}

impl Listeners {
    /// Binds everything that `config` says.
    pub(crate) async fn bind(config: &Config, data: &DataDir) -> Result<Self, NodeError> {
        let unix = config.nbd_socket.clone().unwrap_or_else(|| data.join("nbd.sock"));
        let mut nbd = vec![listen(&Address::Unix(unix), "--nbd-socket").await?];
        if let Some(address) = config.nbd {
            nbd.push(listen(&Address::Tcp(address), "--nbd").await?);
        }
        let unix = data.join(holdfast_api::SOCKET_NAME);
        let mut api = vec![listen(&Address::Unix(unix), "--data-dir").await?];
        if let Some(address) = config.api {
            api.push(listen(&Address::Tcp(address), "--api").await?);
        }
        let peer = match config.listen {
            Some(address) => Some(listen(&Address::Tcp(address), "--listen").await?),
            None => None,
        };
        Ok(Self { nbd, api, peer })
    }

    /// Says once who could do harm.
    pub(crate) fn warn(&self) {
        let exposed = |listeners: &[Listener]| {
            let mut all = listeners.iter().map(Listener::local_addr);
            all.find(|address| !address.is_local()).cloned()
        };
        if let Some(address) = exposed(&self.nbd) {
            tracing::warn!(%address, "NBD has no authentication: whoever reaches this address can read and write every volume");
        }
        if let Some(address) = exposed(&self.api) {
            tracing::warn!(%address, "the management API has no authentication: whoever reaches this address can delete every volume");
        }
        if let Some(address) = exposed(self.peer.as_slice()) {
            tracing::warn!(%address, "connections between nodes have no authentication and no encryption: only nodes of the cluster should reach this address");
        }
    }

    /// What others are told.
    pub(crate) fn advertised(&self, config: &Config) -> Result<Advertised, NodeError> {
        let peer = match (&config.advertise, tcp(self.peer.as_slice())) {
            (_, None) => String::new(),
            (Some(told), Some(_)) => told.clone(),
            (None, Some(bound)) if bound.ip().is_unspecified() => {
                let option = "--advertise";
                return Err(NodeError::Advertise { address: bound.to_string(), option });
            }
            (None, Some(bound)) => bound.to_string(),
        };
        Ok(Advertised {
            api: reachable(&config.api_advertise, tcp(&self.api), &peer),
            nbd: reachable(&config.nbd_advertise, tcp(&self.nbd), &peer),
            peer,
        })
    }
}

async fn listen(address: &Address, option: &'static str) -> Result<Listener, NodeError> {
    Listener::bind(address).await.map_err(|source| NodeError::Listen { source, option })
}

fn tcp(listeners: &[Listener]) -> Option<SocketAddr> {
    listeners.iter().find_map(|listener| match listener.local_addr() {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    })
}

/// What was told; else what is bound, by the host that other nodes use when all are.
fn reachable(told: &Option<String>, bound: Option<SocketAddr>, peer: &str) -> String {
    match (told, bound) {
        (_, None) => String::new(),
        (Some(told), Some(_)) => told.clone(),
        (None, Some(bound)) if bound.ip().is_unspecified() => match peer.rsplit_once(':') {
            Some((host, _)) => format!("{host}:{}", bound.port()),
            None => String::new(),
        },
        (None, Some(bound)) => bound.to_string(),
    }
}

/// The URI of an NBD listener, without a volume's name.
pub(crate) fn uri(address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("nbd://{address}"),
        Address::Unix(path) => format!("nbd+unix://?socket={}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_to_all_addresses_is_told_by_the_host_of_the_node() {
        let all: SocketAddr = "0.0.0.0:10829".parse().unwrap();
        let one: SocketAddr = "10.0.0.1:10829".parse().unwrap();
        let told = Some("lb:1".to_owned());
        assert_eq!(reachable(&None, Some(all), "n1.lan:10819"), "n1.lan:10829");
        assert_eq!(reachable(&None, Some(all), "[fd00::1]:10819"), "[fd00::1]:10829");
        assert_eq!(reachable(&None, Some(one), "n1.lan:10819"), "10.0.0.1:10829");
        assert_eq!(reachable(&told, Some(all), "n1.lan:10819"), "lb:1");
        assert_eq!(reachable(&told, None, "n1.lan:10819"), "", "nothing listens there");
        assert_eq!(reachable(&None, Some(all), ""), "");
    }
}
