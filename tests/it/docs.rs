//! The pages for users say what the code does: every word, every metric family, every example.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use egret::config;
use egret::observe::metrics::Registry;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_reason_has_a_row_in_the_page_of_failures_and_no_row_is_left_over() {
    let known: BTreeSet<String> =
        rust_files(&root().join("src")).iter().flat_map(|file| reasons(&page(file))).collect();
    let told = rows(&page("docs/failures.md"));
    assert!(known.len() > 50, "the reasons were not found: {known:?}");
    let (missing, stale): (Vec<_>, Vec<_>) = (known.difference(&told).collect(), told.difference(&known).collect());
    assert!(missing.is_empty(), "docs/failures.md has no row for {missing:?}");
    assert!(stale.is_empty(), "docs/failures.md has rows for words that the code does not have: {stale:?}");
    let (readme, chosen) = (page("README.md"), rows(&page("README.md")));
    assert!(chosen.len() > 10 && chosen.is_subset(&told), "README.md has other words: {chosen:?}");
    assert!(readme.contains("(docs/failures.md)"), "README.md does not say where the other words are");
}

#[test]
fn commands_of_the_first_page_work_in_a_clone() {
    let page = page("README.md");
    let section = page.split_once("## Ask before it runs").unwrap().1.split_once("\n## ").unwrap().0;
    let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    egret ")).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let words = command.split('#').next().unwrap().split_whitespace();
        let output = Command::new(env!("CARGO_BIN_EXE_egret")).current_dir(root()).args(words).output().unwrap();
        // 1: there is a difference.
        let good = [0, i32::from(command.starts_with("diff"))];
        assert!(output.status.code().is_some_and(|code| good.contains(&code)), "{command}: {output:?}");
    }
}

#[test]
fn every_metric_family_has_a_row_in_the_page_of_operation_and_no_row_is_left_over() {
    let code = page("src/observe/metrics/mod.rs");
    let table = code.split_once("const FAMILIES").expect("the table of families").1;
    let table = table.split_once("];").expect("the end of the table").0;
    let mut known = words(table, "egret_");
    // Two names are constants.
    known.insert(egret::observe::metrics::NOT_BEFORE.to_owned());
    known.insert(egret::observe::metrics::NOT_AFTER.to_owned());
    known.extend(words(&page("src/observe/metrics/process.rs"), "process_"));
    let told = rows(&page("docs/operation.md")).into_iter();
    let told: BTreeSet<String> =
        told.filter(|row| ["egret_", "process_"].iter().any(|start| row.starts_with(start))).collect();
    assert_eq!(told, known);
}

#[test]
fn alerts_ask_for_families_and_labels_that_exist() {
    let (alerts, operation) = (page("deploy/alerts.yml"), page("docs/operation.md"));
    let labels_of = |family: &str| -> BTreeSet<String> {
        let row = operation.lines().find(|line| line.starts_with(&format!("| `{family}` |")));
        let labels = row.unwrap_or_else(|| panic!("{family} is no family")).split('|').nth(2).expect("a second column");
        labels.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut asked = 0;
    for line in alerts.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        for family in words(line, "egret_") {
            let grouped = line.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).map(|(list, _)| list);
            let selected = line.split('{').skip(1).filter(|rest| rest.contains("=~\"") || rest.contains("=\""));
            let selected = selected.filter_map(|rest| rest.split(['=', '}']).next());
            for label in grouped.flat_map(|list| list.split(',')).chain(selected).map(str::trim) {
                asked += 1;
                let known = label == "instance" || labels_of(&family).contains(label);
                assert!(known, "{family} has no label {label}: {line}");
            }
        }
    }
    assert!(asked > 10, "the labels were not found");
}

#[test]
fn every_alert_leads_to_its_section_and_no_section_is_left_over() {
    let (alerts, sections) = (page("deploy/alerts.yml"), page("docs/alerts.md"));
    let after = |text: &str, start: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.trim().strip_prefix(start)).map(str::to_owned).collect()
    };
    let names = after(&alerts, "- alert: ");
    assert!(names.len() > 20, "{names:?}");
    // An anchor is the title in lower case.
    let anchors: Vec<_> = names.iter().map(|name| format!("\"docs/alerts.md#{}\"", name.to_lowercase())).collect();
    assert_eq!(after(&alerts, "runbook: "), anchors);
    let known: BTreeSet<_> = names.into_iter().collect();
    assert_eq!(after(&sections, "## ").into_iter().collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_dashboard_asks_for_families_and_labels_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(&page("deploy/dashboard.json")).unwrap();
    let operation = page("docs/operation.md");
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 15, "{queries:?}");
    for query in queries {
        let families = ["egret_", "process_"].iter().flat_map(|start| words(query, start));
        let families: Vec<String> = families.map(|family| family.trim_end_matches("_bucket").to_owned()).collect();
        assert!(!families.is_empty(), "{query}");
        let mut labels = BTreeSet::from(["instance", "le"].map(str::to_owned));
        for family in families {
            let row = operation.lines().find(|line| line.starts_with(&format!("| `{family}` |")));
            let column = row.unwrap_or_else(|| panic!("{family} is no family: {query}")).split('|').nth(2).unwrap();
            labels.extend(column.split('`').skip(1).step_by(2).map(str::to_owned));
        }
        let grouped = query.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).map(|(list, _)| list);
        for label in grouped.flat_map(|list| list.split(", ")) {
            assert!(labels.contains(label), "no label {label}: {query}");
        }
    }
}

#[test]
fn labels_in_the_page_of_operation_are_those_of_the_metrics() {
    let name = config::values::Name::new("x");
    let registry = Registry::new();
    let listener = egret::observe::metrics::ListenerMetrics::new(&registry, &name);
    listener.refused.increment("r");
    listener.accept_errors.increment("r");
    egret::observe::metrics::RouteMetrics::new(&registry, &name, &name).ended.increment("r");
    let upstream = egret::observe::metrics::UpstreamMetrics::new(&registry, &name);
    upstream.resumption.increment("r");
    upstream.failures.increment("r");
    upstream.would_fail.increment("r");
    egret::observe::metrics::PoolMetrics::new(&registry, &name).discards.increment("r");
    let _ = egret::observe::metrics::ReloadMetrics::new(&registry);
    let endpoint = egret::observe::metrics::EndpointMetrics::new(&registry, &name, ([192, 0, 2, 1], 443).into());
    endpoint.served(true);
    endpoint.discarded("r");
    endpoint.record_handshake(true, std::time::Duration::from_millis(1));
    let text = registry.render();
    let operation = page("docs/operation.md");
    let samples = text.lines().filter(|line| line.starts_with("egret_"));
    for sample in samples {
        let (series, labels) = sample.split_once('{').or_else(|| sample.split_once(' ')).expect("a name");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end)).unwrap_or(series);
        let names = labels.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(name, _)| name);
        let labels: BTreeSet<&str> = names.filter(|name| *name != "le").collect();
        let row = operation.lines().find(|line| line.starts_with(&format!("| `{family}` |"))).expect("a row");
        let column = row.split('|').nth(2).expect("a second column");
        let told: BTreeSet<&str> = column.split('`').skip(1).step_by(2).collect();
        assert_eq!(told, labels, "{family}");
    }
}

#[test]
fn every_whole_configuration_in_the_pages_loads() {
    let mut loaded = 0;
    for path in &pages() {
        for block in toml_blocks(&page(path)).iter().filter(|block| block.contains("[[listeners]]")) {
            config::parse(path, block, &|_| Some("set".to_owned())).unwrap_or_else(|problems| panic!("{problems}"));
            loaded += 1;
        }
    }
    assert!(loaded > 5, "only {loaded} examples were found");
}

#[test]
fn every_file_that_the_pages_name_is_there() {
    for path in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/certificate-sources.md",
        "docs/coming-from.md",
        "docs/configuration.md",
        "docs/database-tunnel.md",
        "docs/installation.md",
        "docs/operation.md",
        "docs/pool.md",
        "docs/systemd.md",
    ] {
        let text = page(path);
        let named = text.split('`').skip(1).step_by(2).filter(|name| {
            let folder = ["config/", "docs/", "deploy/", "src/", "tests/"].iter().any(|start| name.starts_with(start));
            folder && !name.contains(['*', ' ', '\n'])
        });
        let linked = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(name, _)| name);
        let folder = Path::new(path).parent().expect("a page is in a folder");
        for name in linked.filter(|name| !name.contains("://") && !name.starts_with('#')) {
            let file = name.split('#').next().expect("a first part");
            assert!(root().join(folder).join(file).exists(), "{path} links {name}, which is not there");
        }
        for name in named {
            assert!(root().join(name).exists(), "{path} names {name}, which is not there");
        }
    }
}

#[test]
fn bounds_of_pools_in_the_pages_are_those_of_the_code() {
    let source: String = rust_files(&root().join("src")).iter().map(|file| page(file)).collect();
    let number = |before: &str| -> String {
        let rest = source.split_once(before).unwrap_or_else(|| panic!("no {before:?} in src")).1;
        rest.chars().take_while(char::is_ascii_digit).collect()
    };
    let one = number("const PARALLEL: usize = ");
    let all = number("static FILLING: Semaphore = Semaphore::const_new(");
    let pool = page("docs/pool.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        pool.contains(&format!("at most {one} at once for one pool and {all} at once for all of them")),
        "{one}, {all}"
    );
    let operation = page("docs/operation.md");
    assert!(operation.contains(&format!("| originations for one pool at once | {one};")), "{one}");
    assert!(operation.contains(&format!("| originations for all pools at once | {all} |")), "{all}");
}

/// The pages that a reader of the project sees.
fn pages() -> Vec<String> {
    let listed = fs::read_dir(root().join("docs")).expect("docs can be listed");
    let names = listed.map(|entry| entry.expect("an entry can be read").file_name().into_string().expect("a name"));
    let docs = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).into_iter().chain(docs).collect()
}

/// In a block of code a link is not one: its brackets are shown as they stand.
#[test]
fn no_block_of_code_holds_a_link() {
    for path in pages() {
        let mut fenced = false;
        for (number, line) in page(&path).lines().enumerate() {
            fenced ^= line.starts_with("```");
            let code = fenced || line.starts_with("    ");
            assert!(!(code && line.contains("](")), "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn users_read_that_an_http_client_sends_the_host_itself() {
    for path in ["README.md", "docs/configuration.md", "docs/http.md", "config/minimal.toml"] {
        let text = page(path);
        assert!(text.contains("Host: ") && text.contains("curl --connect-to ::127.0.0.1:8080 http://"), "{path}");
    }
}

#[test]
fn reasons_are_found_in_source() {
    let text = "pub fn reason(&self) -> &'static str {\n  match self {\n    A => \"a_word\",\n    B => { \"b\" }\n  }\n}\n\
                fn other() { \"no\" }\nfn reason_is() { \"neither\" }\nfn accept_error(e: &E) -> &'static str { \"c\" }";
    assert_eq!(reasons(text), ["a_word", "b", "c"]);
}

/// The strings in the bodies of the functions that give a reason.
fn reasons(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A protocol's own word for a client that does not speak it.
    found.extend(source.split("not_spoken: \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    for head in ["fn reason(", "fn accept_error("] {
        for part in source.split(head).skip(1) {
            let start = part.find('{').expect("a function has a body");
            found.extend(body(&part[start..]).split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// A text up to the brace that closes its first.
fn body(text: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return &text[..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// The words in code type that begin rows of tables.
fn rows(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("` |")).map(|(word, _)| word.to_owned()).collect()
}

/// The words of lower case and underscores that begin so.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
    words.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
}

/// The contents of blocks that are fenced as TOML.
fn toml_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("\n```toml\n").skip(1);
    blocks.filter_map(|block| block.split_once("\n```")).map(|(block, _)| format!("{block}\n")).collect()
}

/// Paths of the Rust files in a folder, relative to the crate's.
fn rust_files(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).expect("src can be listed").map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path: PathBuf| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path.strip_prefix(root()).expect("it is in the crate").display().to_string()],
        })
        .filter(|path| path.ends_with(".rs"))
        .collect()
}
