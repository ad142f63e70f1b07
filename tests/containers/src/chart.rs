//! The chart's own pods: what Helm renders, carried out by Docker as the kubelet would.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Access, Cluster};

use crate::pods::{Pod, Pods};
use crate::{docker, finished, images};

const RELEASE: &str = "prod";
const NAMESPACE: &str = "cache";
/// The user, and the group of volumes, that a platform picks where the pod names none. Its own group is 0 then.
const PICKED: u32 = 1_000_660_000;

/// What Helm makes of the chart and of some values.
pub struct Chart {
    objects: Vec<Value>,
}

/// The pods of a StatefulSet, and the folders that their volumes are.
pub struct ChartPods {
    chart: Chart,
    pods: Pods,
    /// The first three numbers of every pod's address.
    subnet: String,
    /// The last number of the next one: as with Kubernetes, no pod gets an address that another had.
    next: Cell<u8>,
    folder: TempDir,
}

/// What a container is started with beside its name: arguments for Docker, the image, and the command.
struct Run {
    options: Vec<String>,
    image: String,
    command: Vec<String>,
}

impl Run {
    /// Runs it with these arguments for Docker before its own.
    fn start(&self, docker_args: &[&str]) -> Result<String> {
        let own = [&self.options[..], std::slice::from_ref(&self.image), &self.command].concat();
        docker(&[docker_args, &strings(&own)].concat())
    }
}

impl Chart {
    /// Renders it, with the images of this machine.
    pub fn render(values: &Value) -> Result<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tools = project.join("target/chart");
        let image = |name: &str| json!({ "repository": name, "tag": "latest" });
        let ours = json!({ "image": image(&images().stock), "binary": { "image": image(&images().valkeeper) } });
        let home = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (name, values) in [("ours", &ours), ("values", values)] {
            // Whatever is JSON is YAML.
            let file = home.path().join(name);
            fs::write(&file, values.to_string())?;
            files.extend(["--values".to_owned(), file.display().to_string()]);
        }
        let mut helm = Command::new(tools.join("helm4"));
        helm.env("HOME", home.path()).args(["template", RELEASE, "--namespace", NAMESPACE]).args(files);
        let manifest = finished(helm.arg(project.join("charts/valkey-cluster")))?;
        fs::write(home.path().join("manifest"), manifest)?;
        let script = "import json, sys, yaml; print(json.dumps([each for each in yaml.safe_load_all(open(sys.argv[1])) if each]))";
        let mut python = Command::new(tools.join("venv/bin/python"));
        let objects = finished(python.args(["-c", script]).arg(home.path().join("manifest")))?;
        Ok(Self { objects: serde_json::from_str(&objects)? })
    }

    fn object(&self, kind: &str, name: &str) -> Result<&Value> {
        let fits = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects.iter().find(fits).with_context(|| format!("the chart makes no {kind} {name}"))
    }

    fn stateful_set(&self) -> Result<&Value> {
        self.objects.iter().find(|object| object["kind"] == "StatefulSet").context("the chart makes no StatefulSet")
    }

    fn replicas(&self) -> Result<usize> {
        let replicas = self.stateful_set()?["spec"]["replicas"].as_u64().context("no replicas")?;
        Ok(replicas.try_into()?)
    }

    /// The spec of the pod that a Job, or the chart's test, is.
    fn tool(&self, component: &str) -> Result<&Value> {
        let fits = |object: &&Value| {
            ["Job", "Pod"].iter().any(|kind| object["kind"] == *kind)
                && object["metadata"]["labels"]["app.kubernetes.io/component"] == component
        };
        let object = self.objects.iter().find(fits).with_context(|| format!("the chart makes no {component}"))?;
        Ok(if object["kind"] == "Job" { &object["spec"]["template"]["spec"] } else { &object["spec"] })
    }
}

impl ChartPods {
    /// Starts the pods of the chart. Secrets that it only names have to be given.
    pub fn start(chart: Chart, secrets: &[(&str, BTreeMap<String, String>)], access: Access) -> Result<Self> {
        let pods = Self::before(chart, secrets, access)?;
        (0..pods.pods().len()).try_for_each(|ordinal| pods.create(ordinal))?;
        Ok(pods)
    }

    /// The same before any pod is started.
    pub fn before(chart: Chart, secrets: &[(&str, BTreeMap<String, String>)], access: Access) -> Result<Self> {
        let name = text(&chart.stateful_set()?["metadata"]["name"])?;
        // One that nobody else has who runs this beside us.
        let process = std::process::id();
        let subnet = format!("10.{}.{}", 128 + process / 256 % 128, process % 256);
        let pods = Pods::named(name, chart.replicas()?, &["--subnet", &format!("{subnet}.0/24")], access)?;
        let pods = Self { chart, pods, subnet, next: Cell::new(10), folder: tempfile::tempdir()? };
        for (name, data) in secrets {
            let folder = pods.folder.path().join("given").join(name);
            fs::create_dir_all(&folder)?;
            data.iter().try_for_each(|(key, value)| fs::write(folder.join(key), value))?;
        }
        Ok(pods)
    }

    /// Starts a server that is not ours in the place of a pod: a shell of the stock image with these arguments, over the
    /// pod's volume of that name, which is mounted there as it is, and behind the Service's names.
    pub fn start_foreign(&self, ordinal: usize, volume: (&str, &str), args: &[&str]) -> Result<()> {
        let spec = &self.chart.stateful_set()?["spec"]["template"]["spec"];
        let (name, place) = volume;
        let folder = self.volume(spec, name, &self.pods()[ordinal].name)?;
        let held = held(spec, &Value::Null)?;
        let mount = format!("{}:{place}", folder.display());
        let rest = ["--volume", &mount, "--entrypoint", "sh", &*images().stock];
        let place = self.place(ordinal, &self.new_address())?;
        docker(&[&strings(&place)[..], &strings(&held), &rest, args].concat()).map(drop)
    }

    /// Runs valkey-cli in a pod.
    pub fn cli(&self, ordinal: usize, args: &[&str]) -> Result<String> {
        docker(&[&["exec", &self.pods()[ordinal].container, "valkey-cli"], args].concat())
    }

    /// The pods.
    pub fn pods(&self) -> &[Pod] {
        self.pods.list()
    }

    /// The pods, to a client.
    pub fn as_cluster(&self) -> &dyn Cluster {
        &self.pods
    }

    /// The ordinals of the pods that serve slots.
    pub fn primaries(&self) -> Result<Vec<usize>> {
        self.pods.primaries()
    }

    /// What the readiness probe says of a pod; its reason where it fails.
    pub fn is_ready(&self, pod: &Pod) -> Result<()> {
        self.execute(pod, &self.server()?["readinessProbe"]["exec"]["command"]).map(drop)
    }

    /// Waits until every pod is ready, and the cluster in sync.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        for pod in self.pods() {
            self.as_cluster().wait_for("the pod to be ready", limit, || self.is_ready(pod).map(Some))?;
        }
        self.as_cluster().wait_in_sync(limit)
    }

    /// Stops a pod as the kubelet does: the hook, then SIGTERM, then as much patience as the pod asks for.
    pub fn stop(&self, pod: &Pod) -> Result<()> {
        self.execute(pod, &self.server()?["lifecycle"]["preStop"]["exec"]["command"])?;
        pod.ask_docker_to("stop")
    }

    /// Runs the Job or the test of that component to its end: what it printed.
    pub fn run_to_end(&self, component: &str) -> Result<String> {
        let spec = self.chart.tool(component)?;
        let container = &spec["containers"][0];
        let run = self.run_of(spec, container, component, None)?;
        run.start(&["run", "--rm", "--network", self.pods.network()])
    }

    /// What is done from now on is by another version of the chart. Nothing is done yet.
    pub fn upgrade(&mut self, chart: Chart) {
        self.chart = chart;
    }

    /// Takes the pods away that the chart has no more.
    pub fn shrink(&mut self) -> Result<()> {
        self.pods.shrink(self.chart.replicas()?)
    }

    /// A rolling update's part for one pod: its container is another one, as the chart has it now.
    pub fn renew(&self, ordinal: usize) -> Result<()> {
        self.stop(&self.pods()[ordinal])?;
        self.replace(ordinal)
    }

    /// Puts the chart's pod in the place of whatever is there, which is stopped first where it runs.
    pub fn replace(&self, ordinal: usize) -> Result<()> {
        let pod = &self.pods()[ordinal];
        pod.ask_docker_to("stop")?;
        pod.ask_docker_to("rm")?;
        self.create(ordinal)
    }

    /// Makes the pod: its init containers run to their ends, then the server starts.
    fn create(&self, ordinal: usize) -> Result<()> {
        let set = self.chart.stateful_set()?;
        let spec = &set["spec"]["template"]["spec"];
        let pod = &self.pods()[ordinal];
        for init in spec["initContainers"].as_array().into_iter().flatten() {
            let run = self.run_of(spec, init, &pod.name, None)?;
            run.start(&["run", "--rm", "--network", "none"])
                .with_context(|| format!("an init container of {}", pod.name))?;
        }
        let address = self.new_address();
        let run = self.run_of(spec, self.server()?, &pod.name, Some(&address))?;
        let grace = spec["terminationGracePeriodSeconds"].as_u64().context("a grace period")?.to_string();
        let place = self.place(ordinal, &address)?;
        run.start(&[&strings(&place)[..], &["--stop-timeout", &grace]].concat()).map(drop)
    }

    /// How a pod's container is started on the network, at an address and behind the names of the headless Service.
    fn place(&self, ordinal: usize, address: &str) -> Result<Vec<String>> {
        let Pod { name, container } = &self.pods()[ordinal];
        let service =
            format!("{}.{NAMESPACE}.svc.cluster.local", text(&self.chart.stateful_set()?["spec"]["serviceName"])?);
        let own = format!("{name}.{service}");
        let place = ["run", "--detach", "--name", container, "--hostname", name, "--network", self.pods.network()];
        let found = ["--ip", address, "--network-alias", &service, "--network-alias", &own];
        Ok([&place[..], &found].concat().into_iter().map(str::to_owned).collect())
    }

    fn server(&self) -> Result<&Value> {
        let containers = self.chart.stateful_set()?["spec"]["template"]["spec"]["containers"].as_array();
        containers.and_then(|all| all.iter().find(|one| one["name"] == "valkey")).context("no container is the server")
    }

    fn new_address(&self) -> String {
        format!("{}.{}", self.subnet, self.next.replace(self.next.get() + 1))
    }

    fn execute(&self, pod: &Pod, command: &Value) -> Result<String> {
        let command = list(command)?;
        docker(&[&["exec", &pod.container], &*strings(&command)].concat())
    }

    /// A container of a pod, as its manifest has it; of a server's, with its address.
    fn run_of(&self, pod: &Value, container: &Value, name: &str, address: Option<&str>) -> Result<Run> {
        let mut options = held(pod, container)?;
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
                Value::Null => text(&variable["value"])?.to_owned(),
                path if path == "metadata.name" => name.to_owned(),
                path if path == "status.podIP" => address.context("an address")?.to_owned(),
                path if path == "spec.nodeName" => format!("machine-{name}"),
                // A label that this pod has not.
                _ => String::new(),
            };
            // The Service for clients, as the kubelet tells of it; it leads to any pod.
            let value = match value.starts_with("$(") && value.ends_with("_SERVICE_HOST)") {
                true => self.pods()[0].address()?.to_string(),
                false => value,
            };
            options.extend(["--env".to_owned(), format!("{}={value}", text(&variable["name"])?)]);
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let folder = self.volume(pod, text(&mount["name"])?, name)?;
            let folder = mount["subPath"].as_str().map_or(folder.clone(), |below| folder.join(below));
            if !folder.exists() {
                // The kubelet makes it, too, and gives it to whom the volume belongs.
                fs::create_dir_all(&folder)?;
                give_to_group(&folder, pod)?;
            }
            let how = if mount["readOnly"] == true { ":ro" } else { "" };
            options
                .extend(["--volume".to_owned(), format!("{}:{}{how}", folder.display(), text(&mount["mountPath"])?)]);
        }
        let mut command = list(&container["command"])?;
        options.extend(["--entrypoint".to_owned(), command.remove(0)]);
        command.extend(list(&container["args"])?);
        Ok(Run { options, image: text(&container["image"])?.to_owned(), command })
    }

    /// The folder that a pod's volume is, made and filled as the manifest says. What it is filled with follows the chart.
    fn volume(&self, pod: &Value, name: &str, of: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(of).join(name);
        fs::create_dir_all(&folder)?;
        let volume = pod["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == name);
        match volume {
            // A claim, or an empty one: the kubelet gives it to the group.
            None => {}
            Some(volume) if volume["emptyDir"].is_object() => {}
            Some(volume) if volume["configMap"].is_object() => {
                let map = self.chart.object("ConfigMap", text(&volume["configMap"]["name"])?)?;
                for (key, value) in map["data"].as_object().into_iter().flatten() {
                    fs::write(folder.join(key), text(value)?)?;
                }
            }
            Some(volume) if volume["secret"].is_object() => {
                for item in volume["secret"]["items"].as_array().into_iter().flatten() {
                    let file = folder.join(text(&item["path"])?);
                    fs::write(&file, self.secret(text(&volume["secret"]["secretName"])?, text(&item["key"])?)?)?;
                    let mode = volume["secret"]["defaultMode"].as_u64().context("a mode")?;
                    fs::set_permissions(&file, Permissions::from_mode(mode.try_into()?))?;
                    chown(&file, None, Some(group(pod)?))?;
                }
            }
            Some(volume) => bail!("a volume of another kind: {volume}"),
        }
        give_to_group(&folder, pod)?;
        Ok(folder)
    }

    fn secret(&self, name: &str, key: &str) -> Result<Vec<u8>> {
        match self.chart.object("Secret", name) {
            Ok(secret) => Ok(base64::prelude::BASE64_STANDARD.decode(text(&secret["data"][key])?)?),
            Err(_) => {
                let file = self.folder.path().join("given").join(name).join(key);
                fs::read(&file).with_context(|| format!("nobody has given the Secret {name}, {key}"))
            }
        }
    }
}

impl Drop for ChartPods {
    fn drop(&mut self) {
        self.pods.remove();
    }
}

/// What a container may do, as its manifest and its pod's say.
fn held(spec: &Value, container: &Value) -> Result<Vec<String>> {
    let (pod, own) = (&spec["securityContext"], &container["securityContext"]);
    let user = pod["runAsUser"].as_u64().unwrap_or(PICKED.into());
    let mut options = vec!["--user".to_owned(), format!("{user}:{}", pod["runAsGroup"].as_u64().unwrap_or(0))];
    options.extend(["--group-add".to_owned(), group(spec)?.to_string()]);
    if own["readOnlyRootFilesystem"] == true {
        options.push("--read-only".to_owned());
    }
    if own["allowPrivilegeEscalation"] == false {
        options.extend(["--security-opt", "no-new-privileges"].map(str::to_owned));
    }
    for capability in list(&own["capabilities"]["drop"])? {
        options.extend(["--cap-drop".to_owned(), capability]);
    }
    if let Some(limit) = container["resources"]["limits"]["memory"].as_str() {
        // Docker says `m` for Mi, and `g` for Gi.
        options.extend(["--memory".to_owned(), limit.trim_end_matches('i').to_lowercase()]);
    }
    options.extend(["--pids-limit", "100"].map(str::to_owned));
    Ok(options)
}

fn group(pod: &Value) -> Result<u32> {
    Ok(pod["securityContext"]["fsGroup"].as_u64().unwrap_or(PICKED.into()).try_into()?)
}

fn give_to_group(folder: &Path, pod: &Value) -> Result<()> {
    chown(folder, None, Some(group(pod)?))?;
    Ok(fs::set_permissions(folder, Permissions::from_mode(0o2775))?)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

fn list(value: &Value) -> Result<Vec<String>> {
    value.as_array().into_iter().flatten().map(|each| Ok(text(each)?.to_owned())).collect()
}

fn strings(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}
