//! The image: small, without rights, and good for a Job and for an init container.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use containers::{docker, finished, images, unique};

/// What the project promises, in bytes.
const LARGEST: u64 = 7_000_000;

#[test]
fn it_is_small_belongs_to_nobody_and_says_what_it_is() {
    let image = &images().valkeeper;
    let inspect = |format: &str| docker(&["image", "inspect", "--format", format, image]).unwrap();
    let size: u64 = inspect("{{.Size}}").parse().unwrap();
    println!("the image has {size} bytes");
    assert!(size <= LARGEST, "{size} bytes");
    assert_eq!(inspect("{{.Config.User}}"), "65532:65532");
    assert_eq!(inspect("{{json .Config.Entrypoint}}"), r#"["/valkeeper"]"#);
    says_what_it_is(image, "valkeeper");
}

#[test]
fn it_holds_the_binary_and_nothing_else() {
    /// It, and what an engine puts into every container.
    const HELD: [&str; 7] =
        [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "valkeeper"];
    let container = docker(&["create", &images().valkeeper]).unwrap();
    let listed = finished(Command::new("sh").args(["-c", "docker export \"$0\" | tar t", &container]));
    docker(&["rm", &container]).unwrap();
    let listed = listed.unwrap();
    let mut files: Vec<_> = listed.lines().filter(|name| !name.ends_with('/')).collect();
    files.sort_unstable();
    assert_eq!(files, HELD);
    let folders: Vec<_> = listed.lines().filter(|name| name.ends_with('/')).collect();
    assert!(
        folders.iter().all(|name| ["dev/", "etc/", "proc/", "sys/"].iter().any(|own| name.starts_with(own))),
        "{folders:?}"
    );
}

fn says_what_it_is(image: &str, title: &str) {
    let labels = docker(&["image", "inspect", "--format", "{{json .Config.Labels}}", image]).unwrap();
    let labels: BTreeMap<String, String> = serde_json::from_str(&labels).unwrap();
    let label = |name: &str| labels[&format!("org.opencontainers.image.{name}")].clone();
    assert_eq!((label("title"), label("version"), label("revision")), (title.to_owned(), "1.2.3".into(), "abc".into()));
}

#[test]
fn an_init_container_brings_it_into_a_stock_image() {
    let volume = unique("shared");
    let shared = format!("{volume}:/shared");
    let held = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"];
    let install = ["--user", "0:0", "--volume", &shared, &images().valkeeper, "install", "/shared"];
    docker(&[&held[..], &install].concat()).unwrap();
    let run = ["--user", "999:999", "--volume", &shared, &images().stock, "/shared/valkeeper", "--version"];
    let version = docker(&[&held[..], &run].concat());
    docker(&["volume", "rm", &volume]).unwrap();
    assert!(version.unwrap().starts_with("valkeeper "));
}

#[test]
fn the_valkey_image_begins_with_it() {
    let inspect = |format: &str| docker(&["image", "inspect", "--format", format, &images().valkey]).unwrap();
    assert_eq!(inspect("{{json .Config.Entrypoint}}"), r#"["/usr/local/bin/valkeeper"]"#);
    let version = docker(&["run", "--rm", "--network", "none", &images().valkey, "--version"]).unwrap();
    assert!(version.starts_with("valkeeper "), "{version}");
    says_what_it_is(&images().valkey, "valkey with valkeeper");
}

#[test]
fn it_is_built_by_the_toolchain_of_its_base_image() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Dockerfile");
    let with = |name: &str| {
        fs::write(&file, format!("FROM scratch\nCOPY {name} /\n")).unwrap();
        let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        docker(&["build", "--quiet", "--file", file.to_str().unwrap(), project])
    };
    with("Cargo.toml").unwrap();
    let refused = with("rust-toolchain.toml").expect_err("rustup would fetch another toolchain").to_string();
    assert!(refused.contains("rust-toolchain.toml"), "{refused}");
}
