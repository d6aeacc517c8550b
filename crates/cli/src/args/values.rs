//! Values that arguments take, and their parsers.

use bytesize::ByteSize;
use clap::ValueEnum;
use holdfast_io::BackendChoice;
use std::{net::SocketAddr, str::FromStr};

/// How to print what a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// What carries disk I/O out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// io_uring if the system allows it, else threads.
    Auto,
    /// io_uring with registered buffers, or fail.
    Uring,
    /// io_uring without registered buffers, or fail.
    UringUnregistered,
    /// a pool of threads.
    Threads,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Uring => Self::Uring,
            Backend::UringUnregistered => Self::UringUnregistered,
            Backend::Threads => Self::Threads,
        }
    }
}

/// A TCP address to listen on, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => socket_address(text).map(|address| Self(Some(address))).map_err(|_| {
                format!("{text:?} is no address; write IP:PORT, such as 127.0.0.1:10809, or none")
            }),
        }
    }
}

/// An address to listen on.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address; write IP:PORT, such as 127.0.0.1:10819 or [::]:10819")
    })
}

/// An address that others connect to: a name or an IP, and a port.
pub(crate) fn host_and_port(text: &str) -> Result<String, String> {
    let wrong = || {
        Err(format!("{text:?} is no address to connect to; write HOST:PORT, such as n1.lan:10819"))
    };
    let Some((host, port)) = text.rsplit_once(':') else { return wrong() };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = match bare {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(plain)
        }
    };
    let numbered = port.parse::<u16>().is_ok_and(|port| port != 0);
    if named && numbered { Ok(text.to_owned()) } else { wrong() }
}

/// A size in bytes: `10GiB`, `500MB`, `4096`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err(format!("{text:?} is no size; write a number and a unit, such as 10GiB")),
    }
}

/// A logical block size.
pub(crate) fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("a logical block has 512 or 4096 bytes".to_owned()),
    }
}

/// A node's name or a zone: a word that stands in tables and addresses.
pub(crate) fn label(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 63;
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    let good = !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(plain);
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} does not do; use 1 to {BYTES_MAX} of A-Z, a-z, 0-9, '-', '.', '_'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("10 GiB"), Ok(10 << 30));
        assert_eq!(size("1.5MiB"), Ok(3 << 19));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "0", "-1", "GiB", "10 apples"] {
            assert!(size(bad).unwrap_err().contains("10GiB"), "{bad}");
        }
    }

    #[test]
    fn addresses_to_connect_to_have_a_host_and_a_port() {
        for good in ["127.0.0.1:1", "n1.lan:10819", "[::1]:7", "localhost:65535", "a_b-c:2"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["", ":1", "host", "host:", "host:0", "host:99999", "::1:7", "[x]:1", "a b:1"] {
            assert!(host_and_port(bad).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
    }

    #[test]
    fn listeners_may_be_off() {
        assert_eq!("none".parse(), Ok(Listen(None)));
        assert_eq!("[::1]:1".parse(), Ok(Listen(Some("[::1]:1".parse().unwrap()))));
        assert!("localhost".parse::<Listen>().unwrap_err().contains("none"));
        assert!(label("rack-1.a").is_ok() && label("").is_err() && label("a b").is_err());
    }
}
