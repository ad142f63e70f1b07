//! What is in the binary, as CycloneDX 1.5 on standard output: every crate that is linked, with its version, its licence
//! and what it needs. Fails where one has no licence.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const ROOT: &str = "valkeeper";

fn main() -> Result<()> {
    let metadata = metadata()?;
    let packages: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), node)).collect();
    let root = *packages.iter().find(|(_, package)| package["name"] == ROOT).context("the package is not there")?.0;

    let mut linked = BTreeSet::new();
    let mut next = vec![root];
    while let Some(id) = next.pop() {
        if linked.insert(id) {
            next.extend(needs(nodes.get(id).with_context(|| format!("{id} is not resolved"))?, &packages));
        }
    }
    let mut components = Vec::new();
    for id in linked.iter().filter(|id| **id != root) {
        components.push(component("library", packages[id])?);
    }
    ensure!(components.len() > 50, "only {} crates were found", components.len());
    let dependencies: Vec<_> = linked
        .iter()
        .map(|id| {
            let needs: BTreeSet<_> = needs(nodes[id], &packages).map(|id| url(packages[id])).collect();
            json!({ "ref": url(packages[id]), "dependsOn": needs })
        })
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component("application", packages[root])? },
        "components": components,
        "dependencies": dependencies,
    });
    println!("{document:#}");
    Ok(())
}

/// Of what is built for this machine's kind with the features that a release has.
fn metadata() -> Result<Value> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The crates that are linked into one: not what only builds or tests it, and no procedural macros.
fn needs<'m>(node: &'m Value, packages: &'m BTreeMap<&str, &Value>) -> impl Iterator<Item = &'m str> {
    let is_linked = |needed: &&Value| list(&needed["dep_kinds"]).any(|kind| kind["kind"].is_null());
    let is_macro =
        |id: &str| list(&packages[id]["targets"]).any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"));
    list(&node["deps"]).filter(is_linked).map(|needed| text(&needed["pkg"])).filter(move |id| !is_macro(id))
}

fn component(kind: &str, package: &Value) -> Result<Value> {
    let name = text(&package["name"]);
    // Some still write a slash where SPDX has OR.
    let licence = text(&package["license"]).replace('/', " OR ");
    ensure!(!licence.is_empty(), "{name} names no licence");
    Ok(json!({
        "type": kind,
        "bom-ref": url(package),
        "name": name,
        "version": package["version"],
        "purl": url(package),
        "licenses": [{ "expression": licence }],
    }))
}

fn url(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
