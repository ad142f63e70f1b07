//! The images, built once for all tests of a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use testbed::Valkey;

use crate::docker;

/// What the Dockerfile makes.
#[derive(Debug)]
pub struct Images {
    /// Nothing but the binary.
    pub valkeeper: String,
    /// A Valkey image that begins with it.
    pub valkey: String,
    /// That which it is made over: a stock image.
    pub stock: String,
}

/// The images; the first who asks builds them.
pub fn images() -> &'static Images {
    static IMAGES: LazyLock<Images> = LazyLock::new(|| Images::build().expect("the images are built"));
    &IMAGES
}

/// The folder of the project.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary that `make build` made.
fn release_binary() -> PathBuf {
    let binary = std::env::var_os("VALKEEPER_RELEASE_BINARY").map(PathBuf::from);
    let binary = binary.expect("VALKEEPER_RELEASE_BINARY: run `make test-containers`");
    assert!(binary.is_file(), "no release binary at {}", binary.display());
    binary
}

impl Images {
    fn build() -> Result<Self> {
        let binary = "valkeeper-test-binary".to_owned();
        made_of("FROM scratch\nCOPY valkeeper /valkeeper\n", &binary, |dir| {
            fs::copy(release_binary(), dir.join("valkeeper"))?;
            Ok(())
        })?;
        let stock = "valkeeper-test-stock".to_owned();
        made_of("FROM scratch\nCOPY root/ /\nCOPY --chown=999:999 data/ /data/\nWORKDIR /data\n", &stock, |dir| {
            fs::create_dir(dir.join("data"))?;
            root_of(&Valkey::newest(), &dir.join("root"))
        })?;
        let (from, over) = (format!("BINARY={binary}"), format!("VALKEY_IMAGE={stock}"));
        let build = |target: &str| {
            let tag = format!("valkeeper-test-{target}");
            let project = project().canonicalize()?;
            let file = project.join("docker/Dockerfile");
            docker(&[
                "build",
                "--quiet",
                "--file",
                &shown(&file),
                "--target",
                target,
                "--build-arg",
                &from,
                "--build-arg",
                &over,
                "--build-arg",
                "VERSION=1.2.3",
                "--build-arg",
                "REVISION=abc",
                "--tag",
                &tag,
                &shown(&project),
            ])?;
            anyhow::Ok(tag)
        };
        Ok(Self { valkeeper: build("valkeeper")?, valkey: build("valkey")?, stock })
    }
}

fn made_of(dockerfile: &str, tag: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("Dockerfile"), dockerfile)?;
    fill(dir.path()).with_context(|| format!("the image {tag}"))?;
    docker(&["build", "--quiet", "--tag", tag, &shown(dir.path())]).map(drop)
}

/// What a stock image holds, as far as a server needs it, and a shell.
fn root_of(valkey: &Valkey, root: &Path) -> Result<()> {
    let tree = valkey.server.ancestors().nth(2).context("the folder of the server")?;
    let (bin, lib) = (root.join("usr/local/bin"), root.join("lib/x86_64-linux-gnu"));
    for dir in [&bin, &lib, &root.join("lib64"), &root.join("bin"), &root.join("etc"), &root.join("tmp")] {
        fs::create_dir_all(dir)?;
    }
    for program in ["valkey-server", "valkey-cli"] {
        fs::copy(tree.join("libexec").join(program), bin.join(program))?;
    }
    for library in fs::read_dir(tree.join("lib"))? {
        let library = library?;
        fs::copy(library.path(), lib.join(library.file_name()))?;
    }
    fs::copy(tree.join("lib/ld.so"), root.join("lib64/ld-linux-x86-64.so.2"))?;
    // It needs the C library alone, and that of the server's suite is no older than this machine's.
    fs::copy("/bin/sh", root.join("bin/sh"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nvalkey:x:999:999::/data:/bin/sh\n")?;
    Ok(())
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
