// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads byte offsets of structure members from the running kernel's type information, BTF
//! (Documentation/bpf/btf.rst). aya keeps what it parses to itself, and the `btf` crate takes
//! seconds to build a tree of every type of the kernel where a few offsets are wanted: this
//! reader makes one pass over the types and looks up names. The input comes from the kernel,
//! but nothing here relies on that: every access is bounded.

use std::path::Path;

use thiserror::Error;

/// Where the kernel shows its own types.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Largest input that is read; kernels have 5 to 10 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// Deepest nesting of anonymous structures, typedefs and qualifiers that is followed.
const MAX_DEPTH: u32 = 16;
/// Most members that one name is compared with: without a bound, a structure that contains itself
/// several times would be walked for ever. The largest of a kernel has some hundreds.
const MAX_MEMBERS: u32 = 1 << 16;

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNCTION: u32 = 12;
const KIND_PROTOTYPE: u32 = 13;

/// Why an offset cannot be had.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read: a kernel built without `CONFIG_DEBUG_INFO_BTF`.
    #[error("read the kernel's types from {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not BTF, or cut short.
    #[error("the kernel's types are malformed: {0}")]
    Malformed(&'static str),
    /// This kernel has no such member.
    #[error("the kernel's types have no {0}")]
    Missing(String),
}

/// Types of a kernel.
pub struct Btf {
    bytes: Vec<u8>,
    /// Start of each type's record in `bytes`; the index is the type id, 0 is `void`.
    types: Vec<usize>,
    /// Ids of structures that have a name, a tenth of all types.
    structures: Vec<u32>,
    /// Start and end of the strings in `bytes`.
    strings: (usize, usize),
}

/// One type's record.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    members: u32,
    /// Offsets of members hold a bit width in their upper byte.
    bitfields: bool,
    /// Type id, for kinds that refer to one.
    target: u32,
    /// Start of what follows the record.
    rest: usize,
}

impl Btf {
    /// Those of the running kernel.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(KERNEL))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
            .map_err(|source| BtfError::Read {
                path: path.display().to_string(),
                source,
            })?;
        Self::parse(bytes)
    }

    /// Finds the types in `bytes`.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let header = |at| word(&bytes, at).ok_or(BtfError::Malformed("the header is cut short"));
        if header(0)? & 0xffff != u32::from(MAGIC) {
            return Err(BtfError::Malformed("the magic number is wrong"));
        }
        let start = header(4)? as usize;
        let section = |offset: u32, length: u32| {
            let from = start.checked_add(offset as usize)?;
            let to = from.checked_add(length as usize)?;
            (to <= bytes.len()).then_some((from, to))
        };
        let outside = BtfError::Malformed("a section lies outside the file");
        let Some((from, to)) = section(header(8)?, header(12)?) else {
            return Err(outside);
        };
        let Some(strings) = section(header(16)?, header(20)?) else {
            return Err(outside);
        };
        let mut btf = Self {
            bytes,
            types: vec![0],
            structures: Vec::new(),
            strings,
        };
        let mut at = from;
        while at < to {
            let malformed = BtfError::Malformed("a type is cut short or unknown");
            let Some((record, end)) = btf.record(at).zip(btf.end(at)) else {
                return Err(malformed);
            };
            if record.kind == KIND_STRUCT && record.name != 0 {
                btf.structures.push(btf.types.len() as u32);
            }
            btf.types.push(at);
            at = end;
        }
        Ok(btf)
    }

    /// Offset in bytes of a member, written as `structure.member` or, through members that are
    /// structures themselves, `structure.member.member`. Members of anonymous structures and
    /// unions count as members of what encloses them, as in C.
    pub fn offset(&self, path: &str) -> Result<u32, BtfError> {
        self.find(path)
            .ok_or_else(|| BtfError::Missing(path.to_owned()))
    }

    /// Type id of the function `name`, if this kernel has it.
    pub fn function(&self, name: &str) -> Option<u32> {
        let found = self.types.iter().skip(1).position(|at| {
            self.record(*at)
                .is_some_and(|it| it.kind == KIND_FUNCTION && self.is_named(it.name, name))
        })?;
        u32::try_from(found + 1).ok()
    }

    /// Names of all functions that begin so, without that beginning.
    #[cfg(test)]
    pub fn functions(&self, start: &str) -> Vec<String> {
        let name = |at: &usize| {
            let it = self.record(*at).filter(|it| it.kind == KIND_FUNCTION)?;
            let from = self.strings.0.checked_add(it.name as usize)?;
            let text = self
                .bytes
                .get(from..self.strings.1)?
                .split(|byte| *byte == 0);
            let text = str::from_utf8(text.into_iter().next()?).ok()?;
            text.strip_prefix(start).map(str::to_owned)
        };
        self.types.iter().skip(1).filter_map(name).collect()
    }

    /// Which parameter of a function is called so, from 0; written as `function.parameter`.
    pub fn parameter(&self, path: &str) -> Result<u32, BtfError> {
        let find = || {
            let (function, parameter) = path.split_once('.')?;
            let function = self.record(*self.types.get(self.function(function)? as usize)?)?;
            let prototype = self.record(*self.types.get(function.target as usize)?)?;
            (prototype.kind == KIND_PROTOTYPE).then_some(())?;
            (0..prototype.members).find(|index| {
                let name = word(&self.bytes, prototype.rest + 8 * *index as usize);
                name.is_some_and(|name| self.is_named(name, parameter))
            })
        };
        find().ok_or_else(|| BtfError::Missing(path.to_owned()))
    }

    fn find(&self, path: &str) -> Option<u32> {
        let (name, members) = path.split_once('.')?;
        let mut current = self.structure(name)?;
        let mut bits = 0_u32;
        for name in members.split('.') {
            let (offset, target) = self.member(current, name, 0, &mut 0)?;
            bits = bits.checked_add(offset)?;
            current = target;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Type id of the structure `name`.
    fn structure(&self, name: &str) -> Option<u32> {
        let is_it = |id: &&u32| {
            let at = self.types.get(**id as usize);
            at.and_then(|at| self.record(*at))
                .is_some_and(|record| self.is_named(record.name, name))
        };
        self.structures.iter().find(is_it).copied()
    }

    /// Offset in bits and type id of a member of `id`.
    fn member(&self, id: u32, name: &str, depth: u32, seen: &mut u32) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let record = self.record(*self.types.get(id as usize)?)?;
        match record.kind {
            KIND_STRUCT | KIND_UNION => {}
            // typedef, volatile, const, restrict, type tag
            8..=11 | 18 => return self.member(record.target, name, depth + 1, seen),
            _ => return None,
        }
        for index in 0..record.members as usize {
            *seen += 1;
            if *seen > MAX_MEMBERS {
                return None;
            }
            let at = record.rest + 12 * index;
            let (member, target) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?);
            let raw = word(&self.bytes, at + 8)?;
            let (offset, width) = if record.bitfields {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if self.is_named(member, name) {
                return (width == 0).then_some((offset, target));
            }
            if self.is_named(member, "")
                && let Some((inner, found)) = self.member(target, name, depth + 1, seen)
            {
                return Some((offset.checked_add(inner)?, found));
            }
        }
        None
    }

    /// The record at `at` (`struct btf_type`).
    fn record(&self, at: usize) -> Option<Type> {
        let info = word(&self.bytes, at.checked_add(4)?)?;
        Some(Type {
            name: word(&self.bytes, at)?,
            kind: (info >> 24) & 0x1f,
            members: info & 0xffff,
            bitfields: info >> 31 == 1,
            target: word(&self.bytes, at + 8)?,
            rest: at + 12,
        })
    }

    /// Where the record at `at` ends.
    fn end(&self, at: usize) -> Option<usize> {
        let record = self.record(at)?;
        let members = record.members as usize;
        let more = match record.kind {
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            // integer, variable, declaration tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            KIND_STRUCT | KIND_UNION => 12 * members,
            // enumeration, prototype
            6 | 13 => 8 * members,
            // data section, 64-bit enumeration
            15 | 19 => 12 * members,
            _ => return None,
        };
        let end = record.rest + more;
        (end <= self.bytes.len()).then_some(end)
    }

    /// Types by hand: `struct outer { int a; struct { int b; int c : 3; }; struct inner in; }`,
    /// `struct inner { int x; int y; }`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0in\0inner\0x\0y\0";
        let name = |wanted: &str| {
            let wanted = format!("\0{wanted}\0");
            let at = strings
                .windows(wanted.len())
                .position(|w| w == wanted.as_bytes());
            at.map_or(0, |at| at as u32 + 1)
        };
        let structure = |members: u32, bitfields: bool| {
            KIND_STRUCT << 24 | members | u32::from(bitfields) << 31
        };
        let types: Vec<u32> = [
            // 1: int
            vec![0, 1 << 24, 4, 32],
            // 2: anonymous
            vec![
                0,
                structure(2, true),
                8,
                name("b"),
                1,
                0,
                name("c"),
                1,
                3 << 24 | 32,
            ],
            // 3: inner
            vec![
                name("inner"),
                structure(2, false),
                8,
                name("x"),
                1,
                0,
                name("y"),
                1,
                32,
            ],
            // 4: const inner
            vec![0, 10 << 24, 3],
            // 5: 64-bit enumeration with one value, 6: declaration tag, 7: type tag
            vec![0, 19 << 24 | 1, 8, 0, 1, 0],
            vec![0, 17 << 24, 3, 0],
            vec![0, 18 << 24, 3],
            // 8: outer
            vec![
                name("outer"),
                structure(3, false),
                20,
                name("a"),
                1,
                0,
                0,
                2,
                32,
                name("in"),
                4,
                96,
            ],
            // 9: prototype (int a, int b), 10: function inner
            vec![0, KIND_PROTOTYPE << 24 | 2, 1, name("a"), 1, name("b"), 1],
            vec![name("inner"), KIND_FUNCTION << 24, 9],
        ]
        .concat();
        let length = types.len() as u32 * 4;
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            length,
            length,
            strings.len() as u32,
        ];
        let mut bytes: Vec<u8> = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.extend_from_slice(strings);
        bytes
    }

    /// Whether the string at `offset` is `name`.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let (from, to) = self.strings;
        let Some(text) = from
            .checked_add(offset as usize)
            .and_then(|at| self.bytes.get(at..to))
        else {
            return false;
        };
        text.get(..name.len()) == Some(name.as_bytes()) && text.get(name.len()) == Some(&0)
    }
}

/// The 32-bit word at `at`, in this machine's byte order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_through_anonymous_structures_and_qualifiers() {
        let btf = Btf::parse(Btf::sample()).unwrap();
        assert_eq!(btf.offset("outer.a").unwrap(), 0);
        assert_eq!(btf.offset("outer.b").unwrap(), 4);
        assert_eq!(btf.offset("outer.in").unwrap(), 12);
        assert_eq!(btf.offset("outer.in.y").unwrap(), 16);
    }

    #[test]
    fn parameters_of_a_function_are_found_by_name() {
        let btf = Btf::parse(Btf::sample()).unwrap();
        assert_eq!(btf.function("inner"), Some(10));
        assert_eq!(btf.function("outer"), None, "a structure");
        assert_eq!(btf.parameter("inner.b").unwrap(), 1);
        assert!(btf.parameter("inner.x").is_err());
        assert!(btf.parameter("none.a").is_err());
    }

    #[test]
    fn what_is_not_there_or_is_a_bit_field_is_an_error_that_names_it() {
        let btf = Btf::parse(Btf::sample()).unwrap();
        for path in [
            "outer.z",
            "nothing.a",
            "outer.c",
            "outer.a.x",
            "outer.in.x.y",
            "",
        ] {
            let error = btf.offset(path).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the kernel's types have no {path}")
            );
        }
    }

    #[test]
    fn no_cut_or_flipped_byte_makes_it_panic() {
        let good = Btf::sample();
        for length in 0..good.len() {
            assert!(
                Btf::parse(good[..length].to_vec()).is_err(),
                "{length} bytes"
            );
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes) {
                    let _ = btf.offset("outer.in.y");
                    let _ = btf.offset("outer.b");
                    let _ = btf.parameter("inner.b");
                }
            }
        }
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let strings = b"\0loop\0";
        // Several times: each level of a search would have as many branches.
        let mut types = vec![1, KIND_STRUCT << 24 | 40, 4];
        types.extend([0, 1, 0].repeat(40));
        let length = types.len() as u32 * 4;
        let header = [
            u32::from(MAGIC),
            24,
            0,
            length,
            length,
            strings.len() as u32,
        ];
        let mut bytes: Vec<u8> = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.extend_from_slice(strings);
        assert!(Btf::parse(bytes).unwrap().offset("loop.member").is_err());
    }

    #[test]
    fn the_running_kernel_is_read() {
        if !Path::new(KERNEL).exists() {
            eprintln!("skipped: this kernel shows no types");
            return;
        }
        let btf = Btf::of_running_kernel().unwrap();
        assert_eq!(btf.offset("path.mnt").unwrap(), 0);
        assert_eq!(btf.offset("path.dentry").unwrap(), 8);
        assert!(btf.offset("dentry.d_name.name").unwrap() > btf.offset("dentry.d_parent").unwrap());
    }
}
