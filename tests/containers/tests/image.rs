//! The image: small, without rights, and good for a Job and for an init container.

use std::collections::BTreeMap;

use containers::{docker, images, unique};

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
    let labels: BTreeMap<String, String> = serde_json::from_str(&inspect("{{json .Config.Labels}}")).unwrap();
    assert_eq!(labels["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(labels["org.opencontainers.image.revision"], "abc");
    assert_eq!(labels["org.opencontainers.image.title"], "valkeeper");
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
}
