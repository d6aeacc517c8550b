//! What a newcomer reads when a volume is served, and the line that programs read.

use crate::size;
use std::{io::Write, net::SocketAddr, path::Path};

/// A volume that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served<'a> {
    /// Its name.
    pub(crate) volume: &'a str,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// Whether it was made by this start.
    pub(crate) created: bool,
    /// Where its data is, in words.
    pub(crate) place: String,
    /// Over TCP, when it is.
    pub(crate) tcp: Option<SocketAddr>,
    /// Its unix socket.
    pub(crate) unix: &'a Path,
    /// Lines of advice, without line ends.
    pub(crate) further: Vec<String>,
}

impl Served<'_> {
    /// Says so on standard output; the line for programs is the last.
    pub(crate) fn announce(&self) {
        let mut out = std::io::stdout().lock();
        // Whoever closed our standard output does not want to be told.
        let _ = out.write_all(self.text().as_bytes()).and_then(|()| out.flush());
    }

    fn text(&self) -> String {
        let Self { volume, size_bytes, .. } = self;
        let unix = self.unix.display();
        let mut uris = vec![format!("nbd+unix:///{volume}?socket={unix}")];
        // NBD URI specification, "TCP" and "unix sockets".
        let attach = match self.tcp {
            Some(address) => {
                uris.insert(0, format!("nbd://{address}/{volume}"));
                let (ip, port) = (address.ip(), address.port());
                format!("nbd-client {ip} {port} /dev/nbd0 -N {volume}")
            }
            None => format!("nbd-client -unix {unix} /dev/nbd0 -N {volume}"),
        };
        let uri = &uris[0];
        let further: String = self.further.iter().map(|line| format!("{line}\n")).collect();
        format!(
            "\
volume {volume} ({size}) {verb} {place}
serving at  {serving}

  nbdinfo '{uri}'
  fio --name={volume} --ioengine=nbd --uri='{uri}' --rw=randwrite --bs=4k --iodepth=32 --size={size_bytes} --time_based --runtime=10
  qemu-img convert -p -n -O raw disk.img '{uri}'
  nbdcopy -p '{uri}' backup.img
  {attach}

{further}Ctrl-C stops it; started again, it serves the same bytes.
ready {ready_uris}
",
            size = size::show(*size_bytes),
            verb = if self.created { "created" } else { "opened" },
            place = self.place,
            serving = uris.join("\n            "),
            ready_uris = uris.join(" "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_for_programs() {
        let served = Served {
            volume: "demo",
            size_bytes: 1 << 30,
            created: true,
            place: "in ./holdfast-data".to_owned(),
            tcp: Some("127.0.0.1:10809".parse().unwrap()),
            unix: Path::new("./holdfast-data/nbd.sock"),
            further: vec!["More.".to_owned()],
        };
        let text = served.text();
        assert_eq!(
            text.lines().last().unwrap(),
            "ready nbd://127.0.0.1:10809/demo nbd+unix:///demo?socket=./holdfast-data/nbd.sock"
        );
        assert!(text.contains("1GiB") && text.contains("\nMore.\nCtrl-C"), "{text}");
        let without_tcp = Served { tcp: None, ..served }.text();
        assert!(without_tcp.contains("nbd-client -unix ./holdfast-data/nbd.sock"), "{without_tcp}");
        assert!(!without_tcp.contains("nbd://"), "{without_tcp}");
    }
}
