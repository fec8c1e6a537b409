//! The measuring scripts: what they judge and whom they recognise, without measuring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::process::stub;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python(words: &[&str]) -> Output {
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-B").args(words).current_dir(root()).env("PYTHONPATH", root().join("benches/peers"));
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The counts of the last release, and how each is changed.
fn compared(change: impl Fn(&str, u64) -> Option<u64>) -> Output {
    let release = "benches/instructions/release.tsv";
    let text = fs::read_to_string(root().join(release)).unwrap();
    let folder = TempDir::new().unwrap();
    let now = folder.path().join("now.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'));
    let changed = rows.filter_map(|(name, count)| Some(format!("{name}\t{}\n", change(name, count.parse().unwrap())?)));
    fs::write(&now, changed.collect::<String>()).unwrap();
    python(&["benches/instructions/figures.py", release, now.to_str().unwrap()])
}

#[test]
fn instructions_above_their_bound_over_the_last_release_fail_by_name() {
    // The figures of every kind that a release has to have.
    let (narrow, wide) = ([(1_029, false), (1_031, true)], [(1_199, false), (1_201, true)]);
    for (name, bound) in [
        ("connection_full", narrow),
        ("connection_resumed", narrow),
        ("round_trip_64", narrow),
        ("mib_up", narrow),
        ("mib_down", wide),
    ] {
        let always = [(1_000, false), (970, false), (500, false), (2_000, true)];
        for (per_mille, is_fault) in always.into_iter().chain(bound) {
            let output = compared(|of, count| Some(if of == name { count * per_mille / 1_000 } else { count }));
            let text = said(&output);
            assert_eq!(output.status.code(), Some(i32::from(is_fault)), "{name} at {per_mille}: {text}");
            assert_eq!(text.contains(&format!("above the bound: {name}:")), is_fault, "{text}");
        }
    }
}

#[test]
fn an_operation_that_is_no_longer_counted_fails_and_a_new_one_does_not() {
    let gone = compared(|name, count| (name != "mib_up").then_some(count));
    assert_eq!(gone.status.code(), Some(1), "{}", said(&gone));
    assert!(said(&gone).contains("above the bound: mib_up:"), "{}", said(&gone));
    // A round trip allocates nothing, of which 3 % are nothing.
    let first = compared(|name, count| Some(count + u64::from(name == "round_trip_64_allocations")));
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    assert!(said(&first).contains("above the bound: round_trip_64_allocations: 1, where"), "{}", said(&first));
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (release, now) = (write("release", "# any machine\na\t100\n"), write("now", "a\t100\nb\t7\n"));
    let added = python(&["benches/instructions/figures.py", &release, &now]);
    assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    assert!(said(&added).contains("b: 7, new"), "{}", said(&added));
}

/// A program that says this of itself when it is asked with this option, and nothing else.
fn program(folder: &TempDir, option: &str, words: &str) -> PathBuf {
    let path = folder.path().join("program");
    stub(&path, &format!("[ \"$1\" = {option} ] || exit 1\ncat >&2 <<'END'\n{words}\nEND"));
    path
}

#[test]
fn a_peer_is_recognised_with_its_tls_library_by_what_it_says() {
    let script = "import sys; from compare.proxies import built, kind_of, library; \
                  print(kind_of(sys.argv[1])[0].proxy.name, library(sys.argv[1]), sep='|'); print(built('mine', sys.argv[1]).text)";
    for (option, words, wanted, has, lacks) in [
        (
            "-V",
            "nginx version: nginx/1.31.5\nbuilt by gcc 12.2.0\nbuilt with OpenSSL 1.1.1 (compatible; AWS-LC 5.12.0) \
             (running with AWS-LC 5.12.0)\nconfigure arguments: --with-stream",
            "nginx|AWS-LC 5.12.0",
            "proxy_buffer_size @BUFFERKIB@k;",
            &["load_module", "proxy_ssl_conf_command"][..],
        ),
        (
            "-V",
            "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.5.1 1 Jul 2025\nconfigure arguments: --with-stream=dynamic",
            "nginx|OpenSSL 3.5.1",
            "load_module",
            &[],
        ),
        (
            "-vv",
            "HAProxy version 3.5-dev5 2026/11/01\nBuilt with SSL library version : AWS-LC 5.12.0\n\
             Running on SSL library version : AWS-LC 5.12.1",
            "haproxy|AWS-LC 5.12.1",
            "curves X25519:P-256",
            &[],
        ),
        (
            "-vv",
            "HAProxy version 2.6.12-1 2023/12/16\nBuilt with OpenSSL version : OpenSSL 3.0.9 30 May 2023\n\
             Running on OpenSSL version : OpenSSL 3.0.22 25 Aug 2026",
            "haproxy|OpenSSL 3.0.22",
            "tune.bufsize @BUFFERBYTES@",
            &["curves"],
        ),
        (
            "-version",
            "stunnel 5.68 on x86_64-pc-linux-gnu platform\nCompiled with OpenSSL 3.0.9 30 May 2023\n\
             Running  with OpenSSL 3.0.22 25 Aug 2026",
            "stunnel|OpenSSL 3.0.22",
            "verifyChain",
            &[],
        ),
        (
            "--version",
            "/usr/bin/envoy  version: 9e558093/1.40.0/Clean/RELEASE/BoringSSL",
            "envoy|BoringSSL",
            "UpstreamTlsContext",
            &[],
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let path = program(&folder, option, words);
        let output = python(&["-c", script, path.to_str().unwrap()]);
        let text = said(&output);
        assert_eq!(text.lines().next(), Some(wanted), "{words}: {text}");
        assert!(text.contains(has), "{words}: {text}");
        assert!(lacks.iter().all(|word| !text.contains(word)), "{words}: {text}");
    }
}

#[test]
fn a_program_that_is_no_peer_is_refused_by_name() {
    for (option, words) in [("-V", "some other server 1.0"), ("--help", "usage"), ("-vv", "proxy version 1")] {
        let folder = TempDir::new().unwrap();
        let path = program(&folder, option, words);
        let peer = format!("mine={}", path.display());
        let output = python(&["-m", "compare", "--peer", &peer]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("is none of nginx, haproxy, stunnel, envoy, ghostunnel"), "{}", said(&output));
    }
}

/// What stands around the proxies in measurements. `tests/run` builds it before, since that takes minutes the first time.
fn tools() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path", "benches/peers/tools/Cargo.toml"]);
    cargo.args(["--target-dir", "target/peers"]);
    let built = cargo.current_dir(root()).output().unwrap();
    assert!(built.status.success(), "{}", said(&built));
    root().join("target/peers/debug/peers")
}

#[test]
fn the_benchmark_of_scale_measures_every_range_and_cuts_no_stream() {
    let (tools, folder) = (tools(), TempDir::new().unwrap());
    let page = folder.path().join("scale.md");
    fs::copy(root().join("docs/scale.md"), &page).unwrap();
    let results = folder.path().join("results.json");
    let mut measuring = Command::new(root().join("benches/scale/run"));
    measuring.arg("--quick").args(["--egret".as_ref(), env!("CARGO_BIN_EXE_egret").as_ref()] as [&Path; 2]);
    measuring.args(
        ["--tools".as_ref(), tools.as_path(), "--page".as_ref(), &page, "--json".as_ref(), &results] as [&Path; 6]
    );
    let measured = measuring.output().unwrap();
    assert!(measured.status.success(), "{}", said(&measured));
    let text = fs::read_to_string(&page).unwrap();
    for row in [
        "| Workers:",
        "| Upstreams, ",
        "| Listeners ",
        "| Streams, ",
        "| Tickets ",
        "| upstreams | file, KiB",
        "| upstreams | streams",
    ] {
        assert!(text.contains(row), "no {row} in {text}");
    }
    let figures: serde_json::Value = serde_json::from_str(&fs::read_to_string(&results).unwrap()).unwrap();
    for part in ["streams", "reload"] {
        let points = figures["parts"][part].as_array().unwrap();
        assert!(points.iter().all(|point| point["cut"] == 0), "{points:?}");
    }
    let swaps = figures["parts"]["reload"].as_array().unwrap().iter();
    assert!(swaps.map(|point| &point["swap"]["swap"]).all(serde_json::Value::is_number), "{figures}");
    let plot = fs::read_to_string(folder.path().join("scale.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.matches("<circle").count() > 10, "{plot}");
}
