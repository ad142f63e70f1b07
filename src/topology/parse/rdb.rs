//! The beginning of an RDB file: its format, when it was begun, and whether there is anything in it.

use std::fmt;
use std::time::Duration;

/// What the first nine bytes of an RDB file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdbFormat {
    /// Whose numbering it is.
    pub magic: RdbMagic,
    /// The number of the format.
    pub version: u16,
}

/// How an RDB file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdbMagic {
    /// `REDIS` and four digits: Valkey until 8.1, and every Redis.
    Redis,
    /// `VALKEY` and three digits: from 9.0 on.
    Valkey,
}

/// The beginning of an RDB file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdbHead {
    /// Its format.
    pub format: RdbFormat,
    /// When the server began to write it, as the time since 1970: what is in it is as old, however long it took.
    pub begun: Option<Duration>,
    /// Whether it ends there and holds nothing. In doubt it holds something.
    pub empty: bool,
}

const AUXILIARY: u8 = 0xfa;
const END: u8 = 0xff;
const CHECKSUM: usize = 8;

impl RdbHead {
    /// How much of a file is enough.
    pub const LENGTH: usize = 4096;

    /// Reads the first bytes of a file; none where it is no RDB file (`rdbLoadRioWithLoadingCtx` in `rdb.c`).
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(9)?;
        let (magic, digits) = match (head.strip_prefix(b"VALKEY"), head.strip_prefix(b"REDIS")) {
            (Some(digits), _) => (RdbMagic::Valkey, digits),
            (_, Some(digits)) => (RdbMagic::Redis, digits),
            _ => return None,
        };
        let version = str::from_utf8(digits).ok()?.parse().ok()?;
        let mut begun = None;
        while let [AUXILIARY, tail @ ..] = rest {
            let Some((name, value, tail)) = pair(tail) else { break };
            if name == Text::Plain(b"ctime") {
                begun = value.number().map(Duration::from_secs);
            }
            rest = tail;
        }
        let empty = matches!(rest, [END, checksum @ ..] if checksum.len() == CHECKSUM);
        Some(Self { format: RdbFormat { magic, version }, begun, empty })
    }
}

/// A string as RDB files have it (`rdbGenericLoadStringObject`).
#[derive(PartialEq, Eq)]
enum Text<'b> {
    Plain(&'b [u8]),
    Number(u64),
}

impl Text<'_> {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Plain(text) => str::from_utf8(text).ok()?.parse().ok(),
        }
    }
}

fn pair(bytes: &[u8]) -> Option<(Text<'_>, Text<'_>, &[u8])> {
    let (name, rest) = text(bytes)?;
    let (value, rest) = text(rest)?;
    Some((name, value, rest))
}

/// None for what is cut off, and for compressed strings, which stand in no header.
fn text(bytes: &[u8]) -> Option<(Text<'_>, &[u8])> {
    let (length, rest) = match bytes {
        [first @ 0..=0x3f, rest @ ..] => (usize::from(*first), rest),
        [first @ 0x40..=0x7f, second, rest @ ..] => (usize::from(*first & 0x3f) << 8 | usize::from(*second), rest),
        [0xc0, a, rest @ ..] => return Some((Text::Number(u64::from(*a)), rest)),
        [0xc1, a, b, rest @ ..] => return Some((Text::Number(u64::from(u16::from_le_bytes([*a, *b]))), rest)),
        [0xc2, a, b, c, d, rest @ ..] => {
            return Some((Text::Number(u64::from(u32::from_le_bytes([*a, *b, *c, *d]))), rest));
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    Some((Text::Plain(text), rest))
}

impl fmt::Display for RdbFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.magic {
            RdbMagic::Redis => write!(f, "REDIS{:04}", self.version),
            RdbMagic::Valkey => write!(f, "VALKEY{:03}", self.version),
        }
    }
}
