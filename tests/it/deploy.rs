//! What `deploy/` promises: an image that holds the program and nothing else, packages, and a unit that systemd takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::process::run;

mod credentials;
mod image;
mod package;
mod packaged_crate;
mod profile;
mod unit;

/// Each artefact, a folder with everything in it, and a test that uses it.
const EXERCISED: &[(&str, &str, &str)] = &[
    ("Containerfile", "deploy/image.rs", "image_holds_a_static_binary_and_nothing_else"),
    ("alerts.test.yml", "alerts.rs", "promtool_takes_the_rules_their_own_tests_and_the_metrics"),
    ("alerts.yml", "alerts.rs", "every_rule_fires_on_what_a_real_egret_exports_and_rests_when_all_is_well"),
    ("build", "deploy/image.rs", "image_of_the_same_binary_is_the_same_bytes_twice"),
    ("dashboard.json", "docs.rs", "the_dashboard_asks_for_families_and_labels_that_exist"),
    ("debian/", "deploy/package.rs", "debian_package_installs_keeps_changed_configuration_and_purges"),
    ("egret.service", "deploy/unit.rs", "systemd_takes_every_line_of_the_unit"),
    ("kubernetes/", "kubernetes/manifests.rs", "bases_are_what_the_chart_renders"),
    ("package", "deploy/package.rs", "packages_are_the_same_bytes_twice_and_their_sums_are_right"),
    ("profile/", "deploy/profile.rs", "a_release_is_compiled_with_the_counts_of_its_own_compiler_and_of_no_other"),
    ("rpm/", "deploy/package.rs", "rpm_installs_verifies_keeps_changed_configuration"),
    ("sbom", "deploy/package.rs", "bill_of_materials_lists_what_the_binary_is_made_of_and_nothing_else"),
    ("source-date", "deploy/image.rs", "image_of_the_same_binary_is_the_same_bytes_twice"),
];

/// Run by hand before a release: each takes a full build. docs/installation.md has their results.
const BY_HAND: [&str; 2] = ["crate", "reproduce"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn no_artefact_is_only_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("deploy")).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| {
        let folder = if entry.path().is_dir() { "/" } else { "" };
        entry.file_name().into_string().unwrap() + folder
    });
    let known = EXERCISED.iter().map(|(name, ..)| *name).chain(BY_HAND);
    assert_eq!(names.collect::<BTreeSet<_>>(), known.map(str::to_owned).collect());
    for (name, file, test) in EXERCISED {
        assert!(read(&root.join("tests/it").join(file)).contains(&format!("fn {test}")), "{name}: no {test} in {file}");
    }
    let (page, release) = (read(&root.join("docs/installation.md")), read(&root.join("CONTRIBUTING.md")));
    for script in BY_HAND {
        assert!(
            page.contains(&format!("deploy/{script}")) && release.contains(&format!("deploy/{script}")),
            "{script}"
        );
        run(Command::new("bash").arg("-n").arg(root.join("deploy").join(script)));
    }
}
