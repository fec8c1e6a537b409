//! The chart and the bases: of one source, valid, hardened, and with the numbers of the configuration in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tools::{helm, kustomize, objects, of_kind, python, root, standard_output, template};
use crate::support::process::{attempt, run};

/// The folders of `bases` that are made of the API of Kubernetes alone.
const WORKLOADS: [&str; 4] = ["gateway", "node", "sidecar", "job"];
/// Those with objects of operators: their kinds are theirs.
const OPERATORS: [&str; 3] = ["monitoring", "monitoring-by-service", "certificates"];

/// Rules of checkov that do not hold, and why that is right.
const ACCEPTED: [(&str, &str); 1] =
    [("CKV2_K8S_6", "sidecar and job: the network policy of a pod is that of its application")];

fn bases() -> std::path::PathBuf {
    root().join("deploy/kubernetes/bases")
}

/// A base as somebody deploys it: in a namespace, the images by digest.
fn deployed(base: &str) -> String {
    // kustomize wants paths below the root or relative ones.
    let folder = TempDir::new_in(root().join("target")).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let images = ["egret", "application"]
        .map(|name| json!({ "name": format!("registry.example.com/{name}"), "digest": digest }));
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "egress",
        "resources": [format!("../../deploy/kubernetes/bases/{base}")],
        "images": images,
    });
    fs::write(folder.path().join("kustomization.yaml"), overlay.to_string()).unwrap();
    kustomize(folder.path())
}

#[test]
fn bases_are_what_the_chart_renders() {
    let folder = TempDir::new().unwrap();
    run(Command::new(root().join("deploy/kubernetes/render")).arg(folder.path()).env("HELM", helm()));
    let listing = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    };
    let names = listing(folder.path());
    assert_eq!(names, WORKLOADS.iter().chain(&OPERATORS).map(|name| (*name).to_owned()).collect());
    assert_eq!(listing(&bases()), names);
    for name in names {
        for file in ["kustomization.yaml", "resources.yaml"] {
            let read = |folder: &Path| fs::read_to_string(folder.join(&name).join(file)).unwrap();
            assert_eq!(read(&bases()), read(folder.path()), "{name}/{file}: run deploy/kubernetes/render");
        }
    }
}

#[test]
fn helm_has_nothing_to_say_against_the_chart_and_much_against_a_wrong_value() {
    let chart = root().join("deploy/kubernetes/chart");
    let helm = |verb: &[&str], arguments: &[&str]| {
        attempt(Command::new(helm()).args(verb).arg(&chart).args(arguments)).status.success()
    };
    for base in WORKLOADS.iter().chain(&OPERATORS) {
        let values = root().join(format!("deploy/kubernetes/values/{base}.yaml"));
        assert!(helm(&["lint", "--strict"], &["--values", values.to_str().unwrap()]), "{base}");
    }
    for wrong in [
        "workload=gatewy",
        "image.digest=sha256:12",
        "replica=4",
        "monitoring.serviceMonitors=true",
        "identities.client.secretName=x",
        "config=listeners",
    ] {
        assert!(!helm(&["template", "egret"], &["--set", wrong]), "{wrong} is accepted");
    }
}

#[test]
fn objects_fit_the_schemas_of_the_api() {
    let folder = TempDir::new().unwrap();
    for base in WORKLOADS {
        let text = deployed(base);
        let objects = objects(&text);
        assert!(objects.len() >= 3, "{base}: {}", objects.len());
        let path = folder.path().join(format!("{base}.yaml"));
        fs::write(&path, &text).unwrap();
        let validate =
            || attempt(python("kubernetes-validate").args(["--strict", "--kubernetes-version", "1.35.0"]).arg(&path));
        let output = validate();
        assert!(output.status.success(), "{base}: {output:?}");
        // A mistyped key would have been found.
        fs::write(&path, text.replacen("enableServiceLinks", "enableServiceLink", 1)).unwrap();
        assert!(!validate().status.success(), "{base}: a key that does not exist is accepted");
    }
}

#[test]
fn pods_keep_every_rule_of_checkov_that_is_not_answered_here() {
    // Folders that begin with a dot are passed over.
    let folder = TempDir::with_prefix("checkov").unwrap();
    for base in WORKLOADS.iter().chain(&OPERATORS) {
        fs::write(folder.path().join(format!("{base}.yaml")), deployed(base)).unwrap();
    }
    let mut command = python("checkov");
    command.args([
        "--framework",
        "kubernetes",
        "--output",
        "json",
        "--quiet",
        "--compact",
        "--soft-fail",
        "--directory",
    ]);
    let report: Value = serde_json::from_str(&standard_output(command.arg(folder.path()))).unwrap();
    let failed: BTreeSet<(String, String)> = report["results"]["failed_checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| ["check_id", "resource"].map(|key| check[key].as_str().unwrap().to_owned()).into())
        .collect();
    assert!(report["summary"]["passed"].as_u64().unwrap() > 200, "{report}");
    let unanswered: Vec<_> =
        failed.iter().filter(|(id, _)| !ACCEPTED.iter().any(|(accepted, _)| accepted == id)).collect();
    assert!(unanswered.is_empty(), "{unanswered:#?}");
    for (accepted, reason) in ACCEPTED {
        assert!(failed.iter().any(|(id, _)| id == accepted), "{accepted} holds now: strike out \"{reason}\"");
    }
    let policy: Vec<_> = failed.iter().filter(|(id, _)| id == "CKV2_K8S_6").collect();
    assert!(policy.iter().all(|(_, pod)| pod.contains("sidecar") || pod.contains("job")), "{policy:?}");
}

/// Ports, grace period and policy follow the configuration.
#[test]
fn the_configuration_is_the_only_place_of_ports_and_times() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    for (lines, listeners, servers, grace) in [
        ("drain_timeout = \"1m30s\"", &["db:5432", "tcp-6379:6379"][..], &["443", "5432", "6379"][..], 105),
        ("drain_timeout = \"1h\"", &["db:5432", "tcp-6379:6379"], &["443", "5432", "6379"], 3615),
        ("drain_timeout = \"1500ms\"", &["db:5432", "tcp-6379:6379"], &["443", "5432", "6379"], 17),
        ("", &["db:5432", "tcp-6379:6379"], &["443", "5432", "6379"], 45),
    ] {
        fs::write(
            &config,
            format!(
                "{lines}\n[upstreams.db]\nservers = [\"db.example.com:5432\", \"[2001:db8::1]:443\"]\n\
                 [[upstreams.cache.servers]]\naddress = \"cache.example.com:6379\"\n\
                 [[listeners]]\nname = \"db\"\nlisten = \"[::]:5432\"\nupstream = \"db\"\nallow = [\"::/0\"]\n\
                 [[listeners]]\nlisten = \"0.0.0.0:6379\"\nupstream = \"cache\"\nallow = [\"10.0.0.0/8\"]\n\
                 [[listeners]]\nname = \"near\"\nlisten = \"127.0.0.1:7000\"\nupstream = \"cache\"\n\
                 [[listeners]]\nname = \"socket\"\nlisten = \"unix:/run/egret/9\"\nupstream = \"cache\"\n"
            ),
        )
        .unwrap();
        let objects = template(&["--set-file", &format!("config={}", config.display())]);
        let service = of_kind(&objects, "Service")["spec"]["ports"].as_array().unwrap();
        let ports: Vec<_> =
            service.iter().map(|port| format!("{}:{}", port["name"].as_str().unwrap(), port["port"])).collect();
        assert_eq!(ports, listeners);
        let policy = &of_kind(&objects, "NetworkPolicy")["spec"];
        let egress: Vec<_> =
            policy["egress"][1]["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string()).collect();
        assert_eq!(egress, servers);
        assert_eq!(policy["ingress"].as_array().unwrap().len(), 1, "without [admin] nobody reads metrics: {policy}");
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["terminationGracePeriodSeconds"], grace);
        assert_eq!(pod["securityContext"]["sysctls"].as_array().unwrap().len(), 1, "no port is below 1024: {pod}");
    }
}

/// Whether an object with these labels is selected.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| &labels[key] == value)
}

#[test]
fn either_monitor_finds_the_metrics_of_every_workload() {
    for workload in WORKLOADS {
        let values = root().join(format!("deploy/kubernetes/values/{workload}.yaml"));
        let render = |monitor: &str| {
            let monitor = format!("monitoring.{monitor}=true");
            template(&["--values", values.to_str().unwrap(), "--set", &monitor])
        };
        let kinds = ["Deployment", "DaemonSet", "Job"];
        let by_pod = render("podMonitor");
        let owner = by_pod.iter().find(|object| kinds.iter().any(|kind| object["kind"] == *kind)).expect("a workload");
        let pod = &owner["spec"]["template"];
        let labels = &pod["metadata"]["labels"];
        let lists = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array());
        let ports =
            lists.into_iter().flatten().flatten().filter_map(|container| container["ports"].as_array()).flatten();
        let port = ports.into_iter().find(|port| port["name"] == "metrics").expect("a port of metrics");

        let monitor = &of_kind(&by_pod, "PodMonitor")["spec"];
        assert!(selects(&monitor["selector"]["matchLabels"], labels), "{workload}: {monitor}");
        assert_eq!(monitor["podMetricsEndpoints"][0]["port"], "metrics");

        let by_service = render("serviceMonitor");
        let monitor = &of_kind(&by_service, "ServiceMonitor")["spec"];
        assert_eq!(monitor["endpoints"][0]["port"], "metrics");
        let services: Vec<_> = by_service
            .iter()
            .filter(|object| object["kind"] == "Service")
            .filter(|service| selects(&monitor["selector"]["matchLabels"], &service["metadata"]["labels"]))
            .collect();
        let [service] = services[..] else { panic!("{workload}: {} services are selected", services.len()) };
        assert!(selects(&service["spec"]["selector"], labels), "{workload}: {service}");
        let served = &service["spec"]["ports"][0];
        assert_eq!((&served["name"], &served["targetPort"]), (&"metrics".into(), &"metrics".into()));
        assert_eq!(served["port"], port["containerPort"]);
    }
    let both = ["--set", "monitoring.podMonitor=true,monitoring.serviceMonitor=true"];
    let chart = root().join("deploy/kubernetes/chart");
    let output = attempt(Command::new(helm()).args(["template", "egret"]).arg(&chart).args(both));
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("choose one"), "{output:?}");
}

#[test]
fn a_port_below_1024_takes_a_sysctl_and_no_capability() {
    for (port, names) in [(443, 2), (1023, 2), (1024, 1)] {
        let config = format!(
            "[upstreams.a]\nservers = [\"192.0.2.1:443\"]\n[[listeners]]\nlisten = \"0.0.0.0:{port}\"\nupstream = \"a\"\n"
        );
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("egret.toml");
        fs::write(&path, config).unwrap();
        let objects = template(&["--set-file", &format!("config={}", path.display())]);
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        let sysctls = pod["securityContext"]["sysctls"].as_array().unwrap();
        assert_eq!(sysctls.len(), names, "{port}: {sysctls:?}");
        assert_eq!(pod["containers"][0]["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    }
}
