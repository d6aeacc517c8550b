//! The handshake without I/O: bytes of the client in, bytes for the client and
//! at last a decision out ("Fixed newstyle negotiation", "Option types").

use super::{
    constraints::Constraints,
    exports::{Export, Exports},
    option::{BASE_ALLOCATION, InfoRequest, Malformed, MetaRequest, text},
    proto::{self, OPTION_HEADER_BYTES, handshake_flag, info, option, option_reply as reply},
};
use smallvec::SmallVec;
use std::io;

/// Message format of the transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies, with 64-bit lengths.
    Extended,
}

/// Metadata contexts that the client selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// `base:allocation`.
    pub allocation: bool,
}

/// Why a handshake ended without transmission.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeEnd {
    /// The client said so.
    #[error("the client ended the handshake")]
    Aborted,
    /// The client closed the connection.
    #[error("the client closed the connection during the handshake")]
    Closed,
    /// [`Limits::handshake_timeout`](super::Limits) passed.
    #[error("the handshake took too long")]
    TimedOut,
    /// `NBD_OPT_EXPORT_NAME` with a name that is not served; the option has no error reply.
    #[error("the client asked for the export {0:?}, which is not served here")]
    UnknownExport(String),
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(&'static str),
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[from] io::Error),
}

/// What the handshake decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The export.
    pub export: Export,
    /// Message format.
    pub mode: Mode,
    /// Metadata contexts.
    pub contexts: Contexts,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send the output, then call again: more input may be usable.
    Again,
    /// Send the output, then read.
    NeedMore,
    /// Send the output, then begin the transmission with the unused input.
    Chosen(Chosen),
    /// Send the output, then close.
    End(HandshakeEnd),
}

/// A handshake in progress.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    options_left: u32,
    padding: bool,
    mode: Mode,
    /// The export that contexts were selected for (its canonical name), and which.
    selected: Option<(String, Contexts)>,
}

#[derive(Debug)]
enum State {
    /// The client's flags come next.
    Flags,
    /// An option comes next.
    Option,
    /// `left` bytes of an option that is too long to look at, then its error.
    Skip { left: u32, option: u32, error: u32 },
}

/// Data of one option that is looked at. Export names and queries are at most
/// 4096 bytes each; real options are below 1 KiB.
const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Data of one option that is read and ignored, so that the error it deserves can
/// be sent. Beyond this the client means harm.
const SKIP_BYTES_MAX: u32 = 1 << 20;
/// Identifies `base:allocation` in `NBD_OPT_SET_META_CONTEXT` replies and in
/// block status chunks.
pub const ALLOCATION_ID: u32 = 1;

impl Handshake {
    /// A handshake that takes at most `options_max` options.
    #[must_use]
    pub fn new(options_max: u32) -> Self {
        Self {
            state: State::Flags,
            options_left: options_max,
            padding: true,
            mode: Mode::Simple,
            selected: None,
        }
    }

    /// The server's first words.
    pub fn greet(&self, out: &mut Vec<u8>) {
        out.extend(proto::INIT_MAGIC.to_be_bytes());
        out.extend(proto::OPTION_MAGIC.to_be_bytes());
        out.extend(SERVER_FLAGS.to_be_bytes());
    }

    /// Uses bytes from the front of `input`; says how many and what is next.
    /// Needs at most `OPTION_BYTES_MAX` and an option header at once.
    pub fn advance(
        &mut self,
        input: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> (usize, Step) {
        match self.state {
            State::Flags => self.take_flags(input),
            State::Option => self.take_option(input, exports, out),
            State::Skip { left, option, error } => {
                let used = input.len().min(left as usize);
                let left = left - used as u32;
                if left > 0 {
                    self.state = State::Skip { left, option, error };
                    return (used, Step::NeedMore);
                }
                self.state = State::Option;
                refuse(out, option, error, "the option is too long or unknown");
                (used, Step::Again)
            }
        }
    }

    fn take_flags(&mut self, input: &[u8]) -> (usize, Step) {
        let Some((flags, _)) = input.split_first_chunk::<4>() else {
            return (0, Step::NeedMore);
        };
        let flags = u32::from_be_bytes(*flags);
        if flags & !u32::from(SERVER_FLAGS) != 0 {
            return (4, Step::End(HandshakeEnd::Violation("unknown client flags")));
        }
        self.padding = flags & u32::from(handshake_flag::NO_ZEROES) == 0;
        self.state = State::Option;
        (4, Step::Again)
    }

    fn take_option(
        &mut self,
        input: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> (usize, Step) {
        let Some((header, rest)) = input.split_first_chunk::<OPTION_HEADER_BYTES>() else {
            return (0, Step::NeedMore);
        };
        let [a, b, c, d, e, f, g, h, o0, o1, o2, o3, l0, l1, l2, l3] = *header;
        if u64::from_be_bytes([a, b, c, d, e, f, g, h]) != proto::OPTION_MAGIC {
            return (0, Step::End(HandshakeEnd::Violation("bad option magic")));
        }
        let option = u32::from_be_bytes([o0, o1, o2, o3]);
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if self.options_left == 0 {
            return (0, Step::End(HandshakeEnd::Violation("too many options")));
        }
        if len > OPTION_BYTES_MAX {
            if len > SKIP_BYTES_MAX || option == option::EXPORT_NAME {
                return (0, Step::End(HandshakeEnd::Violation("an option is too long")));
            }
            self.options_left -= 1;
            if option == option::SET_META_CONTEXT {
                self.selected = None;
            }
            let error = if is_known(option) { reply::ERR_TOO_BIG } else { reply::ERR_UNSUP };
            self.state = State::Skip { left: len, option, error };
            return (OPTION_HEADER_BYTES, Step::Again);
        }
        let Some(data) = rest.get(..len as usize) else {
            return (0, Step::NeedMore);
        };
        self.options_left -= 1;
        (OPTION_HEADER_BYTES + data.len(), self.act(option, data, exports, out))
    }

    fn act(&mut self, option: u32, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        let takes_no_data =
            matches!(option, option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS);
        if takes_no_data && !data.is_empty() {
            refuse(out, option, reply::ERR_INVALID, "the option takes no data");
            return Step::Again;
        }
        match option {
            option::EXPORT_NAME => return self.export_name(data, exports, out),
            option::ABORT => {
                acknowledge(out, option);
                return Step::End(HandshakeEnd::Aborted);
            }
            option::LIST => list(exports, out),
            option::INFO => {
                self.info(option, data, exports, out);
            }
            option::GO => {
                if let Some(chosen) = self.info(option, data, exports, out) {
                    return Step::Chosen(chosen);
                }
            }
            option::STRUCTURED_REPLY => match self.mode {
                Mode::Extended => {
                    let why = "extended headers are already in force";
                    refuse(out, option, reply::ERR_EXT_HEADER_REQD, why);
                }
                Mode::Simple | Mode::Structured => {
                    self.mode = Mode::Structured;
                    acknowledge(out, option);
                }
            },
            option::EXTENDED_HEADERS => {
                self.mode = Mode::Extended;
                acknowledge(out, option);
            }
            option::LIST_META_CONTEXT => self.list_contexts(data, exports, out),
            option::SET_META_CONTEXT => self.set_contexts(data, exports, out),
            _ => refuse(out, option, reply::ERR_UNSUP, "unknown option"),
        }
        Step::Again
    }

    /// "NBD_OPT_EXPORT_NAME": success or the end of the session.
    fn export_name(&self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        if self.mode == Mode::Extended {
            let why = "NBD_OPT_EXPORT_NAME after NBD_OPT_EXTENDED_HEADERS";
            return Step::End(HandshakeEnd::Violation(why));
        }
        let Some(name) = text(data) else {
            return Step::End(HandshakeEnd::Violation("the export name is not a string"));
        };
        let Some(export) = exports.find(name) else {
            return Step::End(HandshakeEnd::UnknownExport(name.to_owned()));
        };
        out.extend(export.geometry.size_bytes.to_be_bytes());
        out.extend(self.transmission_flags(&export).to_be_bytes());
        if self.padding {
            out.extend([0; proto::EXPORT_NAME_PADDING_BYTES]);
        }
        Step::Chosen(self.choose(export))
    }

    /// "NBD_OPT_INFO and NBD_OPT_GO". The size constraints are always sent: ours
    /// are never the default ones.
    fn info(
        &self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Option<Chosen> {
        let request = match InfoRequest::parse(data) {
            Ok(request) => request,
            Err(malformed) => {
                refuse_malformed(out, option, malformed);
                return None;
            }
        };
        let Some(export) = exports.find(request.name) else {
            refuse(out, option, reply::ERR_UNKNOWN, NO_SUCH_EXPORT);
            return None;
        };
        let size = export.geometry.size_bytes.to_be_bytes();
        let flags = self.transmission_flags(&export).to_be_bytes();
        send_info(out, option, info::EXPORT, &[&size, &flags]);
        let constraints = Constraints::of(&export.geometry);
        let (min, preferred, max) =
            (constraints.min_block, constraints.preferred_block, constraints.max_payload);
        let sizes = [&min.to_be_bytes()[..], &preferred.to_be_bytes(), &max.to_be_bytes()];
        send_info(out, option, info::BLOCK_SIZE, &sizes);
        if request.wants_name {
            send_info(out, option, info::NAME, &[export.name.as_bytes()]);
        }
        if request.wants_description {
            send_info(out, option, info::DESCRIPTION, &[export.description.as_bytes()]);
        }
        acknowledge(out, option);
        Some(self.choose(export))
    }

    fn list_contexts(&self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) {
        let option = option::LIST_META_CONTEXT;
        if let Some((request, _)) = self.meta(option, data, exports, out) {
            if request.no_queries || request.allocation || request.wildcard {
                // "The metadata context ID in these replies [...] SHOULD be set to zero".
                send_context(out, option, 0);
            }
            acknowledge(out, option);
        }
    }

    fn set_contexts(&mut self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) {
        let option = option::SET_META_CONTEXT;
        // A failure, too, replaces what was selected before.
        self.selected = None;
        if let Some((request, export)) = self.meta(option, data, exports, out) {
            if request.allocation {
                send_context(out, option, ALLOCATION_ID);
            }
            acknowledge(out, option);
            self.selected = Some((export.name, Contexts { allocation: request.allocation }));
        }
    }

    /// What both context options check; refuses what fails.
    fn meta<'a>(
        &self,
        option: u32,
        data: &'a [u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Option<(MetaRequest<'a>, Export)> {
        if self.mode == Mode::Simple {
            let why = "metadata contexts need structured replies or extended headers";
            refuse(out, option, reply::ERR_INVALID, why);
            return None;
        }
        let request = match MetaRequest::parse(data) {
            Ok(request) => request,
            Err(malformed) => {
                refuse_malformed(out, option, malformed);
                return None;
            }
        };
        let Some(export) = exports.find(request.name) else {
            refuse(out, option, reply::ERR_UNKNOWN, NO_SUCH_EXPORT);
            return None;
        };
        Some((request, export))
    }

    fn choose(&self, export: Export) -> Chosen {
        let contexts = match &self.selected {
            Some((name, contexts)) if *name == export.name => *contexts,
            _ => Contexts::default(),
        };
        Chosen { export, mode: self.mode, contexts }
    }

    /// "Transmission flags". Acknowledged writes are durable and seen by every
    /// connection, so several connections are always fine.
    fn transmission_flags(&self, export: &Export) -> u16 {
        use super::proto::transmission_flag::*;
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
        if export.geometry.read_only {
            flags |= READ_ONLY;
        } else {
            flags |= SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
        }
        if self.mode != Mode::Simple {
            flags |= SEND_DF;
        }
        flags
    }
}

const SERVER_FLAGS: u16 = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
const NO_SUCH_EXPORT: &str = "no export of this name is served here";

fn is_known(option: u32) -> bool {
    matches!(option, option::EXPORT_NAME..=option::LIST)
        || matches!(option, option::INFO..=option::EXTENDED_HEADERS)
}

/// "NBD_OPT_LIST".
fn list(exports: &dyn Exports, out: &mut Vec<u8>) {
    for export in exports.list() {
        let name = export.name.as_bytes();
        let len = (name.len() as u32).to_be_bytes();
        let data = [&len[..], name, export.description.as_bytes()];
        send(out, option::LIST, reply::SERVER, &data);
    }
    acknowledge(out, option::LIST);
}

fn send(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    let len: usize = data.iter().map(|piece| piece.len()).sum();
    out.extend(proto::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((len as u32).to_be_bytes());
    for piece in data {
        out.extend_from_slice(piece);
    }
}

fn send_info(out: &mut Vec<u8>, option: u32, kind: u16, data: &[&[u8]]) {
    let kind = kind.to_be_bytes();
    let mut pieces: SmallVec<[&[u8]; 4]> = SmallVec::new();
    pieces.push(&kind);
    pieces.extend_from_slice(data);
    send(out, option, reply::INFO, &pieces);
}

fn send_context(out: &mut Vec<u8>, option: u32, id: u32) {
    let data = [&id.to_be_bytes()[..], BASE_ALLOCATION.as_bytes()];
    send(out, option, reply::META_CONTEXT, &data);
}

fn acknowledge(out: &mut Vec<u8>, option: u32) {
    send(out, option, reply::ACK, &[]);
}

fn refuse(out: &mut Vec<u8>, option: u32, error: u32, why: &str) {
    send(out, option, error, &[why.as_bytes()]);
}

fn refuse_malformed(out: &mut Vec<u8>, option: u32, malformed: Malformed) {
    match malformed {
        Malformed::Invalid => refuse(out, option, reply::ERR_INVALID, "malformed option"),
        Malformed::TooBig => refuse(out, option, reply::ERR_TOO_BIG, "too many queries"),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
