//! The server's way to split a line into words and to quote (`sdssplitargs` and `sdscatrepr` in `sds.c`).

/// The words of a line; none where a quote is not closed or is followed by something other than a space.
pub(super) fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    // The server's strings end there.
    let mut rest = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut found = Vec::new();
    loop {
        while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(found);
        }
        let (word, tail) = word(rest)?;
        found.push(word);
        rest = tail;
    }
}

/// A value as one word of a line: every byte that might mean something to the server is written as its number.
pub(super) fn quoted(value: &[u8]) -> String {
    let mut text = String::from('"');
    for byte in value {
        match byte {
            b'.' | b'_' | b'-' | b':' | b'/' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Some((word, rest)),
            [b'"', tail @ ..] => return in_double_quotes(tail, word),
            [b'\'', tail @ ..] => return in_single_quotes(tail, word),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn in_double_quotes(mut rest: &[u8], mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'"', tail @ ..] => return ends_a_word(tail).then_some((word, tail)),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high) << 4 | digit(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (meant(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

fn in_single_quotes(mut rest: &[u8], mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return ends_a_word(tail).then_some((word, tail)),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

fn ends_a_word(rest: &[u8]) -> bool {
    matches!(rest, [] | [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..])
}

fn meant(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.saturating_sub(b'A') + 10,
    }
}
