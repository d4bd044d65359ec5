//! What server and client agree on before the first request. Pure: bytes in, bytes out.
//!
//! An option nobody knows is answered as unsupported and haggling goes on. Lengths are bounded before
//! they are used: data that is too long is passed over without being kept, and refused.

use super::wire::{self, Reader, answer, can, info, option};

/// What is served.
#[derive(Clone, Debug)]
pub(super) struct Export {
    /// Its name; the empty name means it too.
    pub(super) name: String,
    /// For people.
    pub(super) description: String,
    pub(super) size_bytes: u64,
    /// Smallest request, and unit of all.
    pub(super) sector_bytes: u32,
    /// What the disk likes best.
    pub(super) preferred_bytes: u32,
    /// What it can do, apart from what depends on the client.
    pub(super) flags: u16,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Replies in chunks.
    pub(super) is_structured: bool,
    /// The client may ask what is allocated.
    pub(super) has_allocation: bool,
}

/// What became of the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There must be more of them.
    NeedMore,
    /// So many are used up; go on.
    Took(usize),
    /// So many are used up; what follows are requests.
    Agreed(usize, Terms),
    /// The client wants no more, or is none.
    End,
}

/// A client on its way to its first request.
#[derive(Debug)]
pub(super) struct Haggle<'e> {
    export: &'e Export,
    stage: Stage,
    wants_zeroes: bool,
    terms: Terms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its flags.
    Flags,
    Options,
    /// Data of an option that is too long.
    Skipping {
        option: u32,
        left: u32,
    },
}

/// Longest data of an option; a client with nothing to hide needs less than half.
pub(super) const OPTION_BYTES_MAX: u32 = 16 << 10;
const OPTION_HEAD_BYTES: usize = 16;
/// Reserved bytes of the oldest answer.
const RESERVED_BYTES: usize = 124;

impl<'e> Haggle<'e> {
    /// Begins; the greeting goes to `out`.
    pub(super) fn new(export: &'e Export, out: &mut Vec<u8>) -> Self {
        out.extend(wire::MAGIC.to_be_bytes());
        out.extend(wire::OPTION_MAGIC.to_be_bytes());
        out.extend((wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
        Self {
            export,
            stage: Stage::Flags,
            wants_zeroes: true,
            terms: Terms::default(),
        }
    }

    /// Takes one thing from the front of `input`; what is to be said about it goes to `out`.
    pub(super) fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        match self.stage {
            Stage::Flags => self.flags(input),
            Stage::Options => self.option(input, out),
            Stage::Skipping { option, left } => self.skip(option, left, input, out),
        }
    }

    fn flags(&mut self, input: &[u8]) -> Step {
        let Some(flags) = Reader(input).u32() else {
            return Step::NeedMore;
        };
        let known = u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
        if flags & !known != 0 {
            return Step::End;
        }
        self.wants_zeroes = flags & u32::from(wire::NO_ZEROES) == 0;
        self.stage = Stage::Options;
        Step::Took(4)
    }

    fn option(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let mut reader = Reader(input);
        let Some(magic) = reader.u64() else {
            return Step::NeedMore;
        };
        if magic != wire::OPTION_MAGIC {
            return Step::End;
        }
        let (Some(option), Some(length)) = (reader.u32(), reader.u32()) else {
            return Step::NeedMore;
        };
        if length > OPTION_BYTES_MAX {
            self.stage = Stage::Skipping {
                option,
                left: length,
            };
            return Step::Took(OPTION_HEAD_BYTES);
        }
        let Some(data) = reader.bytes(length as usize) else {
            return Step::NeedMore;
        };
        self.answer(option, data, OPTION_HEAD_BYTES + data.len(), out)
    }

    fn skip(&mut self, option: u32, left: u32, input: &[u8], out: &mut Vec<u8>) -> Step {
        let count = input.len().min(left as usize);
        if count == 0 {
            return Step::NeedMore;
        }
        let left = left - count as u32;
        self.stage = Stage::Skipping { option, left };
        if left == 0 {
            if option == option::EXPORT_NAME {
                return Step::End; // it has no way to be refused
            }
            self.stage = Stage::Options;
            reply(out, option, answer::TOO_BIG, &[]);
        }
        Step::Took(count)
    }

    fn answer(&mut self, option: u32, data: &[u8], took: usize, out: &mut Vec<u8>) -> Step {
        match option {
            option::EXPORT_NAME => return self.export_name(data, took, out),
            option::ABORT => {
                reply(out, option, answer::ACK, &[]);
                return Step::End;
            }
            option::INFO | option::GO => {
                let is_told = self.tell(option, data, out);
                if is_told && option == option::GO {
                    return Step::Agreed(took, self.terms);
                }
            }
            option::LIST if data.is_empty() => {
                let name = self.export.name.as_bytes();
                let length = (name.len() as u32).to_be_bytes();
                reply(out, option, answer::SERVER, &[&length, name]);
                reply(out, option, answer::ACK, &[]);
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.terms.is_structured = true;
                reply(out, option, answer::ACK, &[]);
            }
            option::LIST | option::STRUCTURED_REPLY => reply(out, option, answer::INVALID, &[]),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.contexts(option, data, out);
            }
            _ => reply(out, option, answer::UNSUP, &[]),
        }
        Step::Took(took)
    }

    fn export_name(&self, name: &[u8], took: usize, out: &mut Vec<u8>) -> Step {
        if !self.is_ours(name) {
            return Step::End;
        }
        out.extend(self.export.size_bytes.to_be_bytes());
        out.extend(self.flags_now().to_be_bytes());
        if self.wants_zeroes {
            out.extend([0; RESERVED_BYTES]);
        }
        Step::Agreed(took, self.terms)
    }

    /// Tells what a client wants to know about the export; whether it is ours.
    fn tell(&self, option: u32, data: &[u8], out: &mut Vec<u8>) -> bool {
        let Some((name, wanted)) = parse_info(data) else {
            reply(out, option, answer::INVALID, &[]);
            return false;
        };
        if !self.is_ours(name) {
            reply(out, option, answer::UNKNOWN, &[]);
            return false;
        }
        let export = self.export;
        let mut tell = |kind: u16, parts: &[&[u8]]| {
            let kind = kind.to_be_bytes();
            let parts: Vec<&[u8]> = std::iter::once(&kind[..])
                .chain(parts.iter().copied())
                .collect();
            reply(out, option, answer::INFO, &parts);
        };
        let size = export.size_bytes.to_be_bytes();
        tell(info::EXPORT, &[&size, &self.flags_now().to_be_bytes()]);
        for kind in wanted.chunks_exact(2) {
            match u16::from_be_bytes([kind[0], kind[1]]) {
                info::NAME => tell(info::NAME, &[export.name.as_bytes()]),
                info::DESCRIPTION => tell(info::DESCRIPTION, &[export.description.as_bytes()]),
                _ => {}
            }
        }
        // Also where nobody asked: smaller requests are refused.
        let sizes = [
            export.sector_bytes,
            export.preferred_bytes,
            wire::PAYLOAD_BYTES_MAX,
        ];
        let sizes = sizes.map(u32::to_be_bytes);
        tell(info::BLOCK_SIZE, &[sizes.as_flattened()]);
        reply(out, option, answer::ACK, &[]);
        true
    }

    fn contexts(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        let sets = option == option::SET_META_CONTEXT;
        if sets {
            self.terms.has_allocation = false; // also when this one fails
        }
        let parsed = Contexts::parse(data).filter(|_| self.terms.is_structured);
        let Some(wanted) = parsed else {
            return reply(out, option, answer::INVALID, &[]);
        };
        if !self.is_ours(wanted.export) {
            return reply(out, option, answer::UNKNOWN, &[]);
        }
        let is_meant = if sets {
            wanted.names_allocation
        } else {
            wanted.names_allocation || wanted.names_base || wanted.is_empty
        };
        if is_meant {
            let id = if sets { wire::ALLOCATION_ID } else { 0 };
            let id = id.to_be_bytes();
            reply(out, option, answer::META_CONTEXT, &[&id, wire::ALLOCATION]);
            self.terms.has_allocation |= sets;
        }
        reply(out, option, answer::ACK, &[]);
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.export.name.as_bytes()
    }

    fn flags_now(&self) -> u16 {
        let more = if self.terms.is_structured { can::DF } else { 0 };
        self.export.flags | more
    }
}

/// Which contexts a client asks for.
struct Contexts<'d> {
    export: &'d [u8],
    is_empty: bool,
    names_allocation: bool,
    names_base: bool,
}

impl<'d> Contexts<'d> {
    fn parse(data: &'d [u8]) -> Option<Self> {
        let mut reader = Reader(data);
        let export = reader.string()?;
        let count = reader.u32()?;
        let mut found = Self {
            export,
            is_empty: count == 0,
            names_allocation: false,
            names_base: false,
        };
        for _ in 0..count {
            // Each takes four bytes of the data at least, so this ends.
            let query = reader.string()?;
            found.names_allocation |= query == wire::ALLOCATION;
            found.names_base |= query == b"base:";
        }
        reader.0.is_empty().then_some(found)
    }
}

/// Name of the export, and the list of what is wanted.
fn parse_info(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(data);
    let name = reader.string()?;
    let count = usize::from(reader.u16()?);
    let wanted = reader.bytes(2 * count)?;
    reader.0.is_empty().then_some((name, wanted))
}

fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    out.extend(wire::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((length as u32).to_be_bytes());
    data.iter().for_each(|part| out.extend_from_slice(part));
}
