//! `egret check`: advice on certificates, the formats, and the user's own rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use time::Duration;

use crate::support::authority::{Ca, Leaf, Wish, openssl, write_key};
use crate::support::process::{attempt, run};

/// A folder with a configuration.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("egret.toml"), configuration).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn check(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command.current_dir(self.path()).args(["check", "egret.toml"]).args(arguments).env("NO_COLOR", "1");
        command.output().unwrap()
    }

    fn codes(&self, arguments: &[&str]) -> BTreeSet<String> {
        let output = self.check(&[arguments, &["--format", "json"]].concat());
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = list.as_array().unwrap();
        list.iter().map(|one| one["code"].as_str().unwrap_or_else(|| panic!("{one:#}")).to_owned()).collect()
    }
}

const IDENTITY: &str = "[identities.app]\ncertificate = 'app.crt'\nprivate_key = 'app.key'\n";
const USE: &str = "[upstreams.db]\nservers = ['db.example.com:5432']\ntls = { identity = 'app', trust = 'house' }\n\
                   [[listeners]]\nlisten = '127.0.0.1:5432'\nupstream = 'db'\n\
                   [trust.house]\n";

fn identity_and(trust: &str) -> Case {
    Case::new(&format!("{IDENTITY}{USE}{trust}"))
}

/// What a case puts into its folder, and what is then told.
type Row = (&'static str, fn(&Path), &'static [&'static str]);

const WISH: Wish<'_> =
    Wish { cn: "app", names: &["app.example.com"], from: Duration::days(-1), until: Duration::days(300) };

fn root(folder: &Path) -> Ca {
    let ca = Ca::new("House Root");
    fs::write(folder.join("root.pem"), &ca.pem).unwrap();
    ca
}

fn chain(folder: &Path, parts: &[&str]) {
    fs::write(folder.join("app.crt"), parts.concat()).unwrap();
}

const ROWS: &[Row] = &[
    ("a good chain", |folder| drop(root(folder).leaf(&WISH).write(folder, "app")), &[]),
    (
        "an identity that ends soon",
        |folder| {
            let wish = Wish { from: Duration::days(-60), until: Duration::days(20), ..WISH };
            drop(root(folder).leaf(&wish).write(folder, "app"));
        },
        &["identity-expires"],
    ),
    (
        "an identity of six days, a day old",
        |folder| {
            let wish = Wish { until: Duration::days(5), ..WISH };
            drop(root(folder).leaf(&wish).write(folder, "app"));
        },
        &[],
    ),
    (
        "an identity of an hour, ten minutes before its end",
        |folder| {
            let wish = Wish { from: Duration::minutes(-50), until: Duration::minutes(10), ..WISH };
            drop(root(folder).leaf(&wish).write(folder, "app"));
        },
        &["identity-expires"],
    ),
    (
        "an identity for servers only",
        |folder| {
            root(folder).leaf(&WISH).write(folder, "app");
            let extension = "extendedKeyUsage=serverAuth";
            let request =
                ["req", "-x509", "-new", "-key", "app.key", "-out", "app.crt", "-days", "300", "-subj", "/CN=app"];
            openssl(
                folder,
                &[&request[..], &["-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE"]].concat(),
            );
        },
        &["identity-not-for-clients"],
    ),
    (
        "the root in the chain",
        |folder| {
            let ca = root(folder);
            let leaf = ca.leaf(&WISH);
            leaf.write(folder, "app");
            chain(folder, &[&leaf.pem, &ca.pem]);
        },
        &["root-superfluous"],
    ),
    (
        "a part of another kind in the chain's file",
        |folder| {
            let leaf = root(folder).leaf(&WISH);
            leaf.write(folder, "app");
            chain(
                folder,
                &["# a comment\n", &leaf.pem, "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"],
            );
        },
        &["file-part-unused"],
    ),
    (
        "a stranger in the chain",
        |folder| {
            let ca = root(folder);
            let (leaf, below) = (ca.leaf(&WISH), ca.intermediate("Other Intermediate"));
            leaf.write(folder, "app");
            chain(folder, &[&leaf.pem, &below.pem]);
        },
        &["chain-disorder"],
    ),
    (
        "an intermediate that only the roots have",
        |folder| {
            let ca = Ca::new("House Root");
            let below = ca.intermediate("House Intermediate");
            below.leaf(&WISH).write(folder, "app");
            fs::write(folder.join("root.pem"), ca.pem + &below.pem).unwrap();
        },
        &["chain-incomplete", "intermediate-as-root"],
    ),
    (
        "a server's certificate as root",
        |folder| {
            let ca = root(folder);
            ca.leaf(&WISH).write(folder, "app");
            fs::write(folder.join("root.pem"), Leaf::self_signed(&WISH, false).pem).unwrap();
        },
        &["leaf-as-root"],
    ),
    (
        "a weak root and a weak identity",
        |folder| {
            let make = |name: &str, subject: &str| {
                let (key, crt) = (format!("{name}.key"), format!("{name}.crt"));
                let days = ["-days", "300", "-subj", subject];
                let files = ["-newkey", "rsa:1024", "-sha1", "-keyout", &key, "-out", &crt];
                openssl(folder, &[&["req", "-x509", "-nodes"][..], &days, &files].concat());
            };
            make("root", "/CN=Old Root");
            fs::rename(folder.join("root.crt"), folder.join("root.pem")).unwrap();
            root_signed_weak_leaf(folder);
        },
        &["weak-key", "weak-signature"],
    ),
];

/// A leaf signed with SHA-1 by the key beside `root.pem`.
fn root_signed_weak_leaf(folder: &Path) {
    openssl(
        folder,
        &["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=app", "-keyout", "app.key", "-out", "app.csr"],
    );
    let sign = ["x509", "-req", "-sha1", "-days", "300", "-in", "app.csr", "-out", "app.crt"];
    openssl(folder, &[&sign[..], &["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"]].concat());
    let key = fs::read(folder.join("app.key")).unwrap();
    write_key(&folder.join("app.key"), &key);
}

#[test]
fn certificates_get_the_advice_that_fits_and_no_other() {
    for (what, prepare, expected) in ROWS {
        let case = identity_and("roots = ['root.pem']\n");
        prepare(case.path());
        assert_eq!(case.codes(&[]), expected.iter().map(ToString::to_string).collect(), "{what}");
    }
}

#[test]
fn the_days_before_the_end_can_be_chosen() {
    let case = identity_and("roots = ['root.pem']\n");
    root(case.path()).leaf(&Wish { until: Duration::days(100), ..WISH }).write(case.path(), "app");
    assert_eq!(case.codes(&["--expires-within", "99"]), BTreeSet::new());
    assert_eq!(case.codes(&["--expires-within", "101"]), ["identity-expires".to_owned()].into());
    assert_eq!(case.codes(&["--expires-within", "4000"]).len(), 1, "the root lives longer than that");
    assert!(case.check(&["--expires-within", "101"]).status.success());
    assert_eq!(case.check(&["--strict", "--expires-within", "101"]).status.code(), Some(2));
}

#[test]
fn whatever_is_believed_is_told_of_before_it_ends() {
    let soon = Wish { from: Duration::days(-60), until: Duration::days(5), ..WISH };
    for (trust, codes) in [
        ("certificate = 'server.pem'\n", &["certificate-expires"][..]),
        ("roots = ['root.pem']\ncandidate_roots = ['server.pem']\n", &["leaf-as-root", "root-expires"]),
    ] {
        let case = identity_and(trust);
        root(case.path()).leaf(&WISH).write(case.path(), "app");
        fs::write(case.path().join("server.pem"), Leaf::self_signed(&soon, false).pem).unwrap();
        assert_eq!(case.codes(&[]), codes.iter().map(ToString::to_string).collect(), "{trust}");
        let told = String::from_utf8(case.check(&[]).stderr).unwrap();
        assert!(told.contains("ends in "), "{told}");
    }
}

#[test]
fn lists_that_are_or_will_be_stale_are_told() {
    for (next, code) in [(Duration::hours(-1), "crl-stale"), (Duration::hours(3), "crl-ends")] {
        let case = identity_and("roots = ['root.pem']\ncrls = ['house.crl']\n");
        let ca = root(case.path());
        ca.leaf(&WISH).write(case.path(), "app");
        fs::write(case.path().join("house.crl"), ca.crl(&[], next)).unwrap();
        assert_eq!(case.codes(&[]), [code.to_owned()].into());
    }
}

#[test]
fn one_identity_for_strangers_is_told() {
    let more = "[trust.other]\nroots = ['root.pem']\n[upstreams.other]\nservers = ['o.example.com:1']\n\
                tls = { identity = 'app', trust = 'other' }\n[[listeners]]\nlisten = '127.0.0.1:5433'\nupstream = 'other'\n";
    let case = identity_and(&format!("roots = ['root.pem']\n{more}"));
    root(case.path()).leaf(&WISH).write(case.path(), "app");
    assert_eq!(case.codes(&[]), ["identity-several-trusts".to_owned()].into());
}

fn insecure(reason: &str) -> Case {
    Case::new(&format!(
        "[upstreams.x]\nservers = ['x.example.com:443']\ntls = {{ verify = 'report', insecure_reason = '{reason}' }}\n\
         [[listeners]]\nlisten = '127.0.0.1:8080'\nupstream = 'x'\n"
    ))
}

#[test]
fn a_reason_has_a_day_on_which_it_ends() {
    for (reason, code) in [
        ("the vendor renews", Some("insecure-reason-endless")),
        ("until 2020-02-01", Some("insecure-reason-past")),
        ("2020-02-01: until 2999-01-01", None),
    ] {
        let expected = ["verify-report"].into_iter().chain(code).map(str::to_owned).collect();
        assert_eq!(insecure(reason).codes(&[]), expected, "{reason}");
    }
}

/// A case with an error of the text, and one with two pieces of advice.
fn told() -> [Case; 2] {
    [
        Case::new("[[listeners]]\nlisten = '0.0.0.0:1'\nupstream = 'x'\n[upstreams.x]\nservers = ['x']\n"),
        insecure("soon"),
    ]
}

#[test]
fn sarif_is_what_its_schema_says() {
    for (case, level) in told().iter().zip(["error", "warning"]) {
        let output = case.check(&["--format", "sarif"]);
        // The types are made from the schema of OASIS: what is missing or of another kind does not parse.
        let log: serde_sarif::sarif::Sarif = serde_json::from_slice(&output.stdout).unwrap();
        let run = &log.runs[0];
        let results = run.results.as_ref().unwrap();
        assert_eq!(results.len(), 2, "{results:?}");
        let rules: Vec<&str> = run.tool.driver.rules.as_ref().unwrap().iter().map(|rule| rule.id.as_str()).collect();
        for result in results {
            assert!(rules.contains(&result.rule_id.as_deref().unwrap()));
            assert_eq!(serde_json::to_value(result.level.as_ref().unwrap()).unwrap(), level);
            let place = result.locations.as_ref().unwrap()[0].physical_location.as_ref().unwrap();
            assert_eq!(place.artifact_location.as_ref().unwrap().uri.as_deref(), Some("egret.toml"));
            let region = place.region.as_ref().unwrap();
            assert!(region.start_line.unwrap() >= 1 && region.start_column.unwrap() >= 1);
        }
        // What was parsed and written again is the same: nothing that the schema does not know.
        let again = serde_json::to_value(&log).unwrap();
        assert_eq!(again, serde_json::from_slice::<Value>(&output.stdout).unwrap());
    }
}

/// The schema of OASIS itself, as the crate of the types brings it, and a validator that knows nothing of egret.
#[test]
fn a_validator_finds_nothing_wrong_with_sarif() {
    // Of other platforms' crates nothing is there but what somebody downloaded for something else.
    let version = run(Command::new(env!("CARGO")).arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["metadata", "--format-version=1", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_slice(&attempt(cargo.args(["--filter-platform", host])).stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let types = packages.iter().find(|package| package["name"] == "serde-sarif").unwrap();
    let schema = Path::new(types["manifest_path"].as_str().unwrap()).with_file_name("src").join("schema.json");
    let validated = |log: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.sarif");
        fs::write(&file, log).unwrap();
        let program = "import json, jsonschema, sys\n\
                       log, schema = (json.load(open(name)) for name in sys.argv[1:])\n\
                       jsonschema.validate(log, schema)";
        Command::new("/usr/bin/python3").args(["-c", program]).arg(file).arg(&schema).output().unwrap()
    };
    let [wrong, unwise] = told();
    let rules = ["--strict", "--policy", POLICY, "--policy-parameter", "environment=production"];
    for (case, more) in [(&wrong, &[][..]), (&unwise, &rules)] {
        let log = case.check(&[&["--format", "sarif"], more].concat()).stdout;
        let said = validated(&log);
        assert!(said.status.success(), "{}\n{}", String::from_utf8_lossy(&log), String::from_utf8_lossy(&said.stderr));
        // Were it not looked at, this would pass as well.
        let broken = String::from_utf8(log).unwrap().replacen("\"message\"", "\"massage\"", 1);
        assert!(broken.contains("massage") && !validated(broken.as_bytes()).status.success(), "{broken}");
    }
}

#[test]
fn annotations_of_a_build_are_one_line_each() {
    let [wrong, unwise] = told();
    let output = wrong.check(&["--format", "github"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.starts_with("::error file=egret.toml,line=")), "{text}");
    let text = String::from_utf8(unwise.check(&["--format", "github"]).stdout).unwrap();
    assert!(text.contains(",title=egret%3A verify-report::") && text.contains("%0A"), "{text}");
}

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/policy/production.rego");

#[test]
fn the_shipped_policy_forbids_verification_off_in_production() {
    let case = insecure("until 2999-01-01");
    let checked = |arguments: &[&str]| {
        let output = case.check(arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = checked(&["--policy", POLICY, "--policy-parameter", "environment=production"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("error[policy]: verify = \"report\" is prohibited in production: \"x\""), "{told}");
    assert!(told.contains("egret.toml:1:"), "the upstream is underlined: {told}");
    // Without a word it is production; where it is said to be a test, it is not.
    assert_eq!(checked(&["--policy", POLICY]).0, Some(2));
    assert_eq!(checked(&["--policy", POLICY, "--policy-parameter", "environment=test"]).0, Some(0));
}

#[test]
fn the_shipped_policy_lets_a_safe_configuration_pass() {
    let case = identity_and("roots = ['root.pem']\n");
    root(case.path()).leaf(&WISH).write(case.path(), "app");
    let output = case.check(&["--strict", "--policy", POLICY, "--policy-parameter", "environment=production"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rules_of_version_0_are_taken_and_what_is_no_rule_forbids() {
    let case = insecure("until 2999-01-01");
    let rules = |text: &str| {
        fs::write(case.path().join("house.rego"), text).unwrap();
        let output = case.check(&["--policy", "house.rego"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = rules(
        "package main\ndeny[msg] {\n  input.config.upstreams[name].tls.verify == \"report\"\n  msg := sprintf(\"%v is open\", [name])\n}\n",
    );
    assert_eq!(code, Some(2));
    assert!(told.contains("error[policy]: x is open"), "{told}");
    // A rule that is there and holds for nothing is no missing rule.
    assert_eq!(rules("package main\nimport rego.v1\ndeny if input.file == \"other\"\n").0, Some(0));
    for (text, reason) in [
        ("package main\nallow := true\n", "policy_without_rules"),
        ("this is not Rego", "policy_invalid"),
        ("package main\nimport rego.v1\ndeny := x if { x := 1 }\ndeny := x if { x := 2 }\n", "policy_failed"),
    ] {
        let (code, told) = rules(text);
        assert!(code == Some(2) && told.contains(reason), "{text}: {told}");
    }
    let output = case.check(&["--policy", "nowhere.rego"]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("policy_unreadable"));
}

/// Linear in the size of the file: a third of a second in a release build.
#[test]
fn ten_thousand_upstreams_are_checked_each_with_its_advice() {
    let mut text = String::new();
    for n in 0..10_000 {
        text += &format!("[upstreams.u{n}]\nservers = ['u{n}.example.com:443']\ntls = {{ trust = 'house' }}\n");
        text += &format!("[[listeners]]\nlisten = 'unix:/run/egret/{n}'\nupstream = 'u{n}'\n");
    }
    let case = Case::new(&format!("{text}[trust.house]\nroots = ['root.pem']\n"));
    root(case.path());
    let output = case.check(&["--strict"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Something is to be told of each of them, with its line.
    let unwise = text.replace("trust = 'house'", "verify = 'report', insecure_reason = 'soon'");
    let output = Case::new(&unwise).check(&["--format", "sarif"]);
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 20_000);
}

#[test]
fn every_code_has_a_row_in_the_page_of_checks() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let mut known: BTreeSet<String> = ["policy".to_owned(), "policy-warning".to_owned()].into();
    for file in ["src/config/lint/mod.rs", "src/config/lint/limits.rs", "src/tools/check/files.rs"] {
        let text = read(file);
        for call in text.split("self.advise(").chain(text.split("self.unreferred(")).skip(1) {
            known.extend(
                call.trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split_once('"'))
                    .map(|(code, _)| code.to_owned()),
            );
        }
    }
    assert!(known.len() > 25, "the codes were not found: {known:?}");
    let rows: BTreeSet<String> = read("docs/checks.md")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .filter(|row| !row.contains('.'))
        .collect();
    assert_eq!(rows, known);
    let cases = fs::read_dir(root.join("tests/config/valid")).unwrap().map(|entry| entry.unwrap().path());
    let cases: String =
        cases.map(|path| fs::read_to_string(path).unwrap()).chain([read("tests/it/check.rs")]).collect();
    let untested: Vec<_> = known.iter().filter(|code| !cases.contains(code.as_str())).collect();
    assert!(untested.is_empty(), "no case provokes {untested:?}");
}

/// A variable of the environment at a key where its value is wrong, and the key.
const VALUE_PLACES: [(&str, &str, &str); 8] = [
    ("idle_timeout", "idle_timeout = '1h'", "idle_timeout = '${HIDDEN}'"),
    ("servers", "['db.example.com:5432']", "['${HIDDEN}']"),
    ("port", "'db.example.com:5432'", "'db.example.com:${HIDDEN}'"),
    ("trust", "trust = 'house'", "trust = '${HIDDEN}'"),
    ("server_name", "trust = 'house'", "trust = 'house', server_name = '-${HIDDEN}-'"),
    ("listen", "'127.0.0.1:5432'", "'${HIDDEN}'"),
    ("private_key", "'app.key'", "'${HIDDEN}'"),
    ("roots", "['root.pem']", "['folder/${HIDDEN}.pem']"),
];

#[test]
fn values_of_variables_are_in_no_message() {
    let usual = format!("{IDENTITY}{USE}roots = ['root.pem']\n").replace("[[", "idle_timeout = '1h'\n[[");
    let long = "very-long-secret-".repeat(6);
    for secret in ["sekret-4711", "Zx9", long.as_str(), "with \"quotes\" and\ttabs"] {
        for (key, right, wrong) in VALUE_PLACES {
            let text = usual.replacen(right, wrong, 1);
            assert_ne!(text, usual, "{key}");
            let case = Case::new(&text);
            root(case.path()).leaf(&WISH).write(case.path(), "app");
            for format in ["text", "json", "sarif", "github"] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
                command.current_dir(case.path()).args(["check", "egret.toml", "--format", format]);
                let output = command.env("HIDDEN", secret).env("NO_COLOR", "1").output().unwrap();
                let told = [output.stdout, output.stderr].concat();
                let told = String::from_utf8_lossy(&told).to_lowercase();
                let cut: String = secret.to_lowercase().chars().take(12).collect();
                assert_eq!(output.status.code(), Some(2), "{key}: {told}");
                assert!(!told.contains(&cut), "{key}, {format}: {told}");
                assert!(told.contains("${hidden}"), "{key}, {format}: {told}");
            }
        }
    }
}

#[test]
fn a_note_is_shown_and_passes_strict() {
    let browser = Some("loopback-browser");
    for (server, upgrade, listen, noted) in [
        ("api.example.com:443", "", "127.0.0.1:8080", browser),
        ("api.example.com:8443", "", "[::1]:8080", browser),
        ("api.example.com:443", "", "unix:app.sock", None),
        ("db.example.com:5432", "", "127.0.0.1:8080", None),
        ("ftp.example.com:21", "upgrade = 'ftp'\n", "127.0.0.1:8080", Some("upgrade-limits")),
        ("mail.example.com:587", "upgrade = 'smtp'\n", "127.0.0.1:8080", None),
    ] {
        let text = format!("{IDENTITY}{USE}roots = ['root.pem']\n");
        let text = text.replace("db.example.com:5432", server).replace("127.0.0.1:5432", listen);
        let case = Case::new(&text.replace("servers = ", &format!("{upgrade}servers = ")));
        root(case.path()).leaf(&WISH).write(case.path(), "app");
        let output = case.check(&["--strict", "--format", "sarif"]);
        let log: Value = serde_json::from_slice(&output.stdout).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        let told: Vec<_> = results.iter().map(|one| (one["ruleId"].as_str(), one["level"].as_str())).collect();
        let expected = noted.map(|code| (Some(code), Some("note")));
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{server} {listen}");
        assert!(output.status.success(), "{server} {listen}");
    }
}
