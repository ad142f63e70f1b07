//! The server's version.

use std::fmt;

/// A release of Valkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 9 in 9.1.2.
    pub major: u16,
    /// 1 in 9.1.2.
    pub minor: u16,
    /// 2 in 9.1.2.
    pub patch: u16,
}

impl Version {
    /// The oldest release that can carry our mark: `cluster-announce-human-nodename` came with 7.2.
    pub const OLDEST: Self = Self::new(7, 2, 0);

    /// The first release that knows `availability-zone`.
    pub const AVAILABILITY_ZONE: Self = Self::new(8, 0, 0);

    /// The first release that migrates slots atomically, and that hands over by itself when told to on SIGTERM.
    pub const ATOMIC_MIGRATION: Self = Self::new(9, 0, 0);

    /// The release `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `9.1.2`, `9.1` or `9.1.2-rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+', '~']).next()?;
        let mut parts = release.split('.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        let patch = parts.next().unwrap_or(Some(0))?;
        Some(Self::new(major, minor, patch))
    }

    /// Reads what `valkey-server --version` prints, `Valkey server v=8.1.1 sha=…`. None for another server.
    pub fn announced(text: &str) -> Option<Self> {
        text.strip_prefix("Valkey server ")?
            .split_ascii_whitespace()
            .find_map(|word| Self::parse(word.strip_prefix("v=")?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_suffix() {
        assert_eq!(Version::parse("9.1.2"), Some(Version::new(9, 1, 2)));
        assert_eq!(Version::parse("8.1"), Some(Version::new(8, 1, 0)));
        assert_eq!(Version::parse("9.0.0-rc1"), Some(Version::new(9, 0, 0)));
        for wrong in ["", "9", "nine.one", "9.x.1", "9.1.", "70000.1.1"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_announces_its_version() {
        let text = "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=384b3c0d511f998a\n";
        assert_eq!(Version::announced(text), Some(Version::new(8, 1, 1)));
        for other in ["", "Valkey server", "Redis server v=7.4.0 sha=0", "valkey-cli 8.1.1"] {
            assert_eq!(Version::announced(other), None, "{other}");
        }
    }
}
