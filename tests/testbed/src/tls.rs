//! Mutual TLS as pods have it: one authority, and for each pod a certificate of its own, mounted as Kubernetes does it.

mod authority;
mod client;
mod mount;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

pub use authority::{Authority, Issued};
pub(crate) use client::{ClientTls, Wire};
pub use mount::Mount;

/// Who a client of the test bed is, and where its certificate is mounted.
const CLIENT: &str = "client";

/// The authority of a test bed, and what it has issued.
#[derive(Debug)]
pub struct Tls {
    authority: Authority,
    service: &'static str,
    pods: Vec<Mount>,
    clients: Mount,
    client: Arc<ClientTls>,
}

impl Tls {
    /// Makes an authority, and certificates for these pods and for a client, below that folder.
    pub(crate) fn new(dir: &Path, service: &'static str, pods: &[String]) -> Result<Self> {
        let authority = Authority::new("the test bed's authority");
        let issued = authority.issue(&[CLIENT]);
        let clients = mount_of_client(dir);
        clients.put(&issued, authority.certificate())?;
        let client = Arc::new(ClientTls::new(authority.certificate(), Some(&issued))?);
        let mounts = pods.iter().map(|pod| mount_of(dir, pod)).collect();
        let tls = Self { authority, service, pods: mounts, clients, client };
        for (mount, pod) in tls.pods.iter().zip(pods) {
            mount.put(&tls.authority.issue(&[&tls.name(pod)]), tls.authority.certificate())?;
        }
        Ok(tls)
    }

    /// Who has signed every certificate so far.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where the pod of that ordinal finds its certificate. Panics where there is no such pod.
    pub fn mount(&self, ordinal: usize) -> &Mount {
        &self.pods[ordinal]
    }

    /// Where the program finds its certificate that runs in no pod.
    pub fn clients(&self) -> &Mount {
        &self.clients
    }

    /// The name that a pod's certificate must have.
    pub fn name(&self, pod: &str) -> String {
        format!("{pod}.{}", self.service.trim_end_matches('.'))
    }

    /// What the configuration of that pod's server says, for mutual TLS on every port.
    pub(crate) fn directives(&self, ordinal: usize, port: u16) -> Vec<(String, String)> {
        let mount = self.mount(ordinal);
        let file = |path: PathBuf| path.display().to_string();
        let said = [
            ("port", "0".to_owned()),
            ("tls-port", port.to_string()),
            ("tls-cert-file", file(mount.certificate())),
            ("tls-key-file", file(mount.key())),
            ("tls-ca-cert-file", file(mount.authority())),
            ("tls-auth-clients", "yes".to_owned()),
            ("tls-cluster", "yes".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ];
        said.map(|(name, value)| (name.to_owned(), value)).into()
    }

    pub(crate) fn client(&self) -> Arc<ClientTls> {
        self.client.clone()
    }
}

/// Where a pod's certificate is below the folder of [`Tls::new`].
pub(crate) fn mount_of(dir: &Path, pod: &str) -> Mount {
    Mount::at(dir.join(pod))
}

/// Where the certificate of a client is that is no pod.
pub(crate) fn mount_of_client(dir: &Path) -> Mount {
    mount_of(dir, CLIENT)
}
