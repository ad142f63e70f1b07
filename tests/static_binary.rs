//! The release binary runs in any image: nothing is loaded at its start, whatever libc is in there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The program header that names the dynamic loader (`PT_INTERP` in elf(5)).
const INTERPRETER: u32 = 3;

#[test]
fn the_release_binary_names_no_interpreter() {
    let binary = release_binary();
    let image = fs::read(&binary).unwrap();
    assert_eq!(interpreter(&image), None, "{} is not static", binary.display());
}

#[test]
fn the_release_binary_runs_without_any_environment() {
    let binary = release_binary();
    let output = Command::new(&binary).arg("--version").env_clear().current_dir("/").stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{} --version: {output:?}", binary.display());
    let version = format!("valkeeper {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), version);
}

#[test]
fn the_check_finds_the_interpreter_of_a_dynamic_binary() {
    let shell = fs::read("/bin/sh").unwrap();
    let loader = interpreter(&shell).expect("the system's shell is linked dynamically");
    assert!(Path::new(&loader).is_absolute(), "{loader:?}");
}

/// The binary that `make test` has just built, else the one beside the binary under test.
fn release_binary() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_valkeeper")).ancestors().nth(2).unwrap().join("release/valkeeper");
    let binary = env::var_os("VALKEEPER_RELEASE_BINARY").map_or_else(beside, PathBuf::from);
    assert!(binary.is_file(), "no release binary at {}: run `make build`", binary.display());
    binary
}

/// The dynamic loader that a 64-bit little-endian ELF image asks for: elf(5), `Elf64_Ehdr` and `Elf64_Phdr`.
fn interpreter(image: &[u8]) -> Option<String> {
    let number = |at: usize, bytes: usize| {
        let field = &image[at..at + bytes];
        field.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    assert_eq!(&image[..6], b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF image");
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    assert!(count > 0, "no program headers");
    let header = (0..count).map(|index| table + index * size).find(|at| number(*at, 4) == INTERPRETER as usize)?;
    let (start, length) = (number(header + 0x08, 8), number(header + 0x20, 8));
    Some(String::from_utf8_lossy(&image[start..start + length]).trim_end_matches('\0').to_owned())
}
