//! The data of options that have any, taken apart ("Option types"). Whatever is
//! not exactly of the specified shape is [`Malformed`].

use super::proto::{STRING_BYTES_MAX, info};

/// Queries that one metadata context option may hold; there is one context.
const QUERIES_MAX: u32 = 256;
/// The one metadata context there is.
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
/// Everything in the `base` namespace.
const BASE_WILDCARD: &str = "base:";

/// Why an option's data was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Lengths, encoding or syntax are wrong.
    Invalid,
    /// Right, but more than is taken.
    TooBig,
}

/// `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    /// Name of the export.
    pub(super) name: &'a str,
    /// `NBD_INFO_NAME` is wanted.
    pub(super) wants_name: bool,
    /// `NBD_INFO_DESCRIPTION` is wanted.
    pub(super) wants_description: bool,
}

/// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetaRequest<'a> {
    /// Name of the export.
    pub(super) name: &'a str,
    /// Without queries a listing has everything, and a selection nothing.
    pub(super) no_queries: bool,
    /// `base:allocation` was named.
    pub(super) allocation: bool,
    /// `base:` was named.
    pub(super) wildcard: bool,
}

impl<'a> InfoRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u16()?;
        let mut request = Self { name, wants_name: false, wants_description: false };
        for _ in 0..count {
            match fields.u16()? {
                info::NAME => request.wants_name = true,
                info::DESCRIPTION => request.wants_description = true,
                // EXPORT and BLOCK_SIZE are always sent; unknown ones are ignored.
                _ => {}
            }
        }
        fields.end()?;
        Ok(request)
    }
}

impl<'a> MetaRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u32()?;
        if count > QUERIES_MAX {
            return Err(Malformed::TooBig);
        }
        let mut request = Self { name, no_queries: count == 0, allocation: false, wildcard: false };
        for _ in 0..count {
            let query = fields.string()?;
            if !query.contains(':') {
                return Err(Malformed::Invalid);
            }
            // Other namespaces and unknown leaves of this one are ignored.
            request.allocation |= query == BASE_ALLOCATION;
            request.wildcard |= query == BASE_WILDCARD;
        }
        fields.end()?;
        Ok(request)
    }
}

/// A string by the rules of the section "Conventions".
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > STRING_BYTES_MAX || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// What is left of an option's data.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(Malformed::Invalid);
        };
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// A 32-bit length and that many bytes of text.
    fn string(&mut self) -> Result<&'a str, Malformed> {
        let len = self.u32()? as usize;
        let Some((head, rest)) = self.0.split_at_checked(len) else {
            return Err(Malformed::Invalid);
        };
        self.0 = rest;
        text(head).ok_or(Malformed::Invalid)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Invalid) }
    }
}
