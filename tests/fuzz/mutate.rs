//! From good inputs to bad ones.

/// No input is longer.
const LONGEST: usize = 64 << 10;

/// What programs that read texts stumble over.
const WORDS: [&[u8]; 40] = [
    b"-1",
    b"0",
    b"1",
    b"00",
    b"+1",
    b"65535",
    b"65536",
    b"16383",
    b"16384",
    b"2147483647",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"99999999999999999999999999999999999999999999",
    b"1e400",
    b"0.0000000000001",
    b"NaN",
    b"inf",
    b"",
    b" ",
    b"\0",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\t",
    b":",
    b",",
    b"-",
    b"[",
    b"]",
    b"\"",
    b"\\x",
    b"\xff\xfe",
    "\u{feff}\u{202e}\u{130}\u{1f511}".as_bytes(),
    b"%s%n{}",
];

/// The same numbers for the same seed (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than the bound; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % (bound.max(1) as u64)) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A part of so many; short ones are more likely.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = *self.of(&[1, 4, 32, 4096]);
        start..(start + self.below(most + 1)).min(length)
    }
}

/// A good input with one to six things wrong.
pub(crate) fn mutated(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = chance.of(corpus).clone();
    for _ in 0..=chance.below(6) {
        spoil(&mut bytes, corpus, chance);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn spoil(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    let length = bytes.len();
    match chance.below(14) {
        0 if length > 0 => {
            let place = chance.below(length);
            bytes[place] ^= 1 << chance.below(8);
        }
        1 if length > 0 => {
            let place = chance.below(length);
            bytes[place] = chance.byte();
        }
        2 => bytes.truncate(chance.below(length + 1)),
        3 => drop(bytes.drain(chance.part(length))),
        4 => {
            let part = bytes[chance.part(length)].to_vec();
            insert(bytes, &part, chance);
        }
        5 => {
            // A piece of another one in the place of what follows.
            let other = chance.of(corpus);
            bytes.truncate(chance.below(length + 1));
            bytes.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
        6 => {
            let word = *chance.of(&WORDS);
            insert(bytes, word, chance);
        }
        7 | 8 => {
            // Another number in the place of one.
            let digits: Vec<usize> = (0..length).filter(|place| bytes[*place].is_ascii_digit()).collect();
            if let Some(start) = (!digits.is_empty()).then(|| *chance.of(&digits)) {
                let end = (start..length).find(|place| !bytes[*place].is_ascii_digit()).unwrap_or(length);
                bytes.splice(start..end, chance.of(&WORDS).iter().copied());
            }
        }
        9 | 10 => {
            // Lines that come twice, are missing or are elsewhere.
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            if !lines.is_empty() {
                let (from, to) = (chance.below(lines.len()), chance.below(lines.len()));
                match chance.below(3) {
                    0 => lines.insert(to, lines[from]),
                    1 => drop(lines.remove(from)),
                    _ => lines.swap(from, to),
                }
            }
            *bytes = lines.concat();
        }
        11 => {
            let part = bytes[chance.part(length)].to_vec();
            let times = 1 + chance.below(2_000);
            insert(bytes, &part.repeat(times.min(LONGEST / part.len().max(1))), chance);
        }
        12 => {
            let noise: Vec<u8> = (0..chance.below(64)).map(|_| chance.byte()).collect();
            insert(bytes, &noise, chance);
        }
        _ => {
            // A field that is another one's.
            let fields: Vec<&[u8]> = bytes.split(|byte| b" ,:\r\n=/".contains(byte)).collect();
            let field = chance.of(&fields).to_vec();
            let part = chance.part(length);
            bytes.splice(part, field);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, what: &[u8], chance: &mut Chance) {
    let place = chance.below(bytes.len() + 1);
    bytes.splice(place..place, what.iter().copied());
}
