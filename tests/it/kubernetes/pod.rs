//! A pod of the rendered manifests, run here as a kubelet and a runtime would: its user, its groups, no capability, a
//! read-only root with the program and nothing else of ours, its volumes with the symlink `..data`, a network of its own
//! with its sysctls. What is not here: cgroups, seccomp, and pulling the image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::of_kind;
use crate::support::egret::binary;
use crate::support::namespace::Namespace;
use crate::support::process::{Process, attempt, run};

/// Config maps and secrets by name, each with its keys.
pub(super) type Stored = BTreeMap<String, BTreeMap<String, String>>;

/// The pod's own address: clients come from it, as from any pod.
pub(super) const ADDRESS: &str = "10.0.0.1";

pub(super) struct Pod {
    pub(super) namespace: Namespace,
    spec: Value,
    stored: Stored,
    folder: TempDir,
}

/// Makes the root of a container and becomes its program. `$1` is an empty folder, `$2` the program, `$3` user and group,
/// `$4` the volumes as `FOLDER:PLACE` a line, `$5` the hosts file; the rest is the command.
const RUNTIME: &str = r#"
set -eu
root=$1 program=$2 user=$3 volumes=$4 hosts=$5
shift 5
mount -t tmpfs tmpfs "$root"
mkdir "$root/usr" "$root/dev" "$root/proc" "$root/etc"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
touch "$root/egret"
printf '%s\n' "$hosts" >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
for folder in usr dev proc; do mount --bind "/$folder" "$root/$folder"; done
mount --bind "$program" "$root/egret"
printf '%s' "$volumes" | while IFS=: read -r folder place; do
    mkdir -p "$root$place"
    mount --bind "$folder" "$root$place"
    mount -o remount,bind,ro "$root$place"
done
mount -o remount,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$user" --groups "$user" \
    --no-new-privs --bounding-set=-all --inh-caps=-all --pdeathsig KILL "$@"
"#;

impl Pod {
    /// The pod of the one workload among these objects, which are stored besides the config maps among them.
    pub(super) fn new(objects: &[Value], kind: &str, secrets: Stored) -> Self {
        let configs = objects.iter().filter(|object| object["kind"] == "ConfigMap");
        let stored = configs.map(|object| (text(&object["metadata"]["name"]).to_owned(), data(object))).collect();
        let spec = of_kind(objects, kind)["spec"]["template"]["spec"].clone();
        let sysctls = spec["securityContext"]["sysctls"].as_array().expect("sysctls");
        let [sysctl] = &sysctls[..] else { panic!("{sysctls:?}") };
        let name = text(&sysctl["name"]).strip_prefix("net.ipv4.").expect("a setting of IPv4");
        let namespace = Namespace::with(name, text(&sysctl["value"]));
        run(namespace.guarded("ip").args(["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]));
        let mut pod = Self { namespace, spec, stored, folder: TempDir::new().unwrap() };
        // The program's user passes through it.
        fs::set_permissions(pod.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        pod.mount(secrets);
        pod
    }

    /// What a kubelet does when it mounts the volumes, and each time that objects of theirs have changed.
    pub(super) fn mount(&mut self, changed: Stored) {
        self.stored.extend(changed);
        for volume in self.spec["volumes"].as_array().unwrap() {
            let mode = volume["projected"]["defaultMode"].as_u64().expect("a mode") as u32;
            let files = projected(volume, &self.stored);
            swap(&self.volume(text(&volume["name"])), &files, mode, self.group());
        }
    }

    /// The command line of a container, without those of its probes.
    pub(super) fn start(&self, container: &str) -> Process {
        let container = self.container(container);
        // The entrypoint of the image, see `deploy/Containerfile`.
        let arguments = words(&container["args"]);
        let command = self.inside(container, &[&["/egret".to_owned()][..], &arguments].concat());
        Process::spawn("egret", command, &self.folder.path().join("egret.log"))
    }

    /// Whether a probe of a container passes, and what it prints.
    pub(super) fn probe(&self, container: &str, probe: &str) -> (bool, String) {
        let container = self.container(container);
        let words = words(&container[probe]["exec"]["command"]);
        assert!(!words.is_empty(), "no {probe}: {container}");
        let output = attempt(&mut self.inside(container, &words));
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command of the machine in the pod's network, with the environment of a container.
    pub(super) fn beside(&self, container: &str, command: &[&str]) -> Output {
        let mut line = self.namespace.guarded(command[0]);
        for variable in self.container(container)["env"].as_array().into_iter().flatten() {
            line.env(text(&variable["name"]), text(&variable["value"]));
        }
        attempt(line.args(&command[1..]))
    }

    pub(super) fn spec(&self) -> &Value {
        &self.spec
    }

    /// The container or init container of this name.
    pub(super) fn container(&self, name: &str) -> &Value {
        let lists = ["containers", "initContainers"].map(|list| self.spec[list].as_array());
        let mut all = lists.into_iter().flatten().flatten();
        all.find(|container| container["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", self.spec))
    }

    fn inside(&self, container: &Value, words: &[String]) -> Command {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{container}");
        let root = self.folder.path().join("root");
        fs::create_dir_all(&root).unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap().iter().map(|mount| {
            assert!(mount["readOnly"] == true && mount["subPath"].is_null(), "{mount}");
            format!("{}:{}\n", self.volume(text(&mount["name"])).display(), text(&mount["mountPath"]))
        });
        let mut command = self.namespace.guarded("unshare");
        command.args(["--mount", "sh", "-c", RUNTIME, "runtime"]).arg(&root).arg(binary());
        command
            .arg(self.group().to_string())
            .arg(mounts.collect::<String>())
            .arg("127.0.0.1 localhost api.example.com");
        command.env_clear().args(words);
        command
    }

    fn group(&self) -> u32 {
        let security = &self.spec["securityContext"];
        let ids = ["runAsUser", "runAsGroup", "fsGroup"].map(|key| security[key].as_u64().expect("an id"));
        assert!(ids.iter().all(|id| *id == ids[0]) && ids[0] != 0, "{security}");
        ids[0] as u32
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder.path().join("volumes").join(name)
    }
}

/// The files of a projected volume, by path.
fn projected(volume: &Value, stored: &Stored) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for source in volume["projected"]["sources"].as_array().unwrap() {
        let (_, source) = source.as_object().unwrap().iter().next().unwrap();
        let name = text(&source["name"]);
        let object = stored.get(name).unwrap_or_else(|| panic!("the pod waits for {name}, which nobody makes"));
        match source["items"].as_array() {
            None => files.extend(object.clone()),
            Some(items) => files.extend(items.iter().map(|item| {
                let key = text(&item["key"]);
                let content = object.get(key).unwrap_or_else(|| panic!("{name} has no {key}"));
                (text(&item["path"]).to_owned(), content.clone())
            })),
        }
    }
    files
}

/// Replaces the files of a volume as a kubelet does: a new folder, and one rename of the symlink `..data`.
fn swap(volume: &Path, files: &BTreeMap<String, String>, mode: u32, group: u32) {
    fs::create_dir_all(volume).unwrap();
    let before = fs::read_link(volume.join("..data")).ok();
    let now = TempDir::with_prefix_in("..", volume).unwrap().keep();
    fs::set_permissions(&now, fs::Permissions::from_mode(0o2755)).unwrap();
    for (path, content) in files {
        let path_in = now.join(path);
        fs::create_dir_all(path_in.parent().unwrap()).unwrap();
        fs::write(&path_in, content).unwrap();
        fs::set_permissions(&path_in, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path_in, Some(0), Some(group)).expect("only root can give files to the pod's group");
        let first = Path::new(path).components().next().unwrap();
        let link = volume.join(first);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(first), link).unwrap();
        }
    }
    symlink(now.file_name().unwrap(), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(volume.join(before)).unwrap();
    }
}

fn data(object: &Value) -> BTreeMap<String, String> {
    let data = object["data"].as_object().unwrap();
    data.iter().map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| text(word).to_owned()).collect()
}
