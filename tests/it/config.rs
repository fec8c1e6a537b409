//! Configuration files: each case is a file, with what is told about it beside.
//!
//! `EGRET_BLESS=1` writes the expectations anew; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use egret::cli::{self, Check, Cli, Command, Verdict};
use egret::config::values::quoting::{key, string};
use egret::config::values::{Anchors, Config, ListenAddress, Name, Verify};
use egret::config::{self, Loaded, Place, Problem, Problems, Style};
use egret::tools::check::FileCheck;

use clap::Parser;
use proptest::prelude::*;

/// The only variables that the cases see.
fn environment(name: &str) -> Option<String> {
    match name {
        "TEST_HOST" => Some("db.example.com".to_owned()),
        "TEST_TIMEOUT" => Some("never mind".to_owned()),
        "TEST_QUOTE" => Some("\" $${HOME} ${HOME}".to_owned()),
        _ => None,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The TOML files of a folder, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder of the cases is there");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    paths.sort();
    paths
}

/// A file understood as if it lay in the working folder: expectations name no folder of this machine.
fn parse(path: &Path) -> Result<Loaded, Problems> {
    let text = fs::read_to_string(path).expect("a case can be read");
    let name = path.file_name().expect("a case has a name").to_string_lossy();
    config::parse(&name, &text, &environment)
}

fn parse_text(text: &str) -> Result<Config, Problems> {
    config::parse("test.toml", text, &environment).map(|loaded| loaded.config)
}

/// Compares with a committed file, or writes it. Gives back what differs.
fn compare(path: &Path, told: &str) -> Option<String> {
    if env::var_os("EGRET_BLESS").is_some() {
        fs::write(path, told).expect("an expectation can be written");
        return None;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    (expected != told).then(|| format!("{}:\n--- expected\n{expected}\n--- told\n{told}", path.display()))
}

fn compare_all(cases: impl IntoIterator<Item = (PathBuf, String)>) {
    let different: Vec<_> = cases.into_iter().filter_map(|(path, told)| compare(&path, &told)).collect();
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

fn advice(loaded: &Loaded) -> String {
    let advice: Vec<_> = config::lint(loaded).iter().map(|one| one.render(loaded, Style::Plain)).collect();
    if advice.is_empty() { "no advice\n".to_owned() } else { advice.join("\n\n") + "\n" }
}

#[test]
fn valid_files_pass_and_get_the_expected_advice() {
    compare_all(files("tests/config/valid").into_iter().map(|path| {
        let loaded = parse(&path).unwrap_or_else(|problems| panic!("{problems}"));
        (path.with_extension("expected"), advice(&loaded))
    }));
}

#[test]
fn invalid_files_get_the_expected_problems() {
    let cases = files("tests/config/invalid");
    assert!(cases.len() >= 40, "every rule has a case");
    compare_all(cases.into_iter().map(|path| {
        let problems = parse(&path).err().unwrap_or_else(|| panic!("{} passes", path.display()));
        (path.with_extension("expected"), format!("{problems}\n"))
    }));
}

#[test]
fn every_problem_has_a_place_and_a_repair() {
    for path in files("tests/config/invalid") {
        let Err(problems) = parse(&path) else { panic!("{} passes", path.display()) };
        for problem in problems.iter() {
            assert!(!problem.repair.is_empty() && !problem.title.ends_with('.'), "{problem:?}");
            assert!(problem.span.is_some() || path.ends_with("no_listener.toml"), "{problem:?}");
        }
    }
}

#[test]
fn shipped_examples_pass_without_advice_that_matters() {
    let examples = files("config");
    assert!(examples.len() >= 5);
    for path in examples {
        let loaded = parse(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let advice = config::lint(&loaded);
        let codes: Vec<_> = advice.iter().filter(|one| one.severity().is_warning()).map(|one| one.code).collect();
        let wanted: &[&str] = match path.file_stem().and_then(|stem| stem.to_str()) {
            // Both show keys whose use is worth a word.
            Some("egret") => &["verify-report"],
            Some("redis") => &["eof-lenient"],
            _ => &[],
        };
        assert_eq!(codes, wanted, "{}", path.display());
    }
}

/// The complete example holds every key that the schema has; what cannot stand beside the others, in a comment.
#[test]
fn the_complete_example_shows_every_key() {
    let text = fs::read_to_string(root().join("config/egret.toml")).expect("the example can be read");
    let schema = config::schema();
    let tables = schema["$defs"].as_object().expect("the schema has definitions").values().chain([&schema]);
    for key in tables.flat_map(|table| table["properties"].as_object().into_iter().flat_map(|keys| keys.keys())) {
        let line = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            line.starts_with(&format!("{key} ="))
                || line.starts_with(&format!("[{key}"))
                || line.starts_with(&format!("[[{key}"))
                || line.contains(&format!(".{key}]"))
        };
        assert!(text.lines().any(line), "`{key}` is not in config/egret.toml");
    }
}

#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let mut printed = Vec::new();
    cli::print_schema(&mut printed).expect("a vector takes everything");
    let printed = String::from_utf8(printed).expect("JSON is UTF-8");
    compare_all([(root().join("docs/schema.json"), printed)]);
}

#[test]
fn every_key_of_the_schema_is_described() {
    let schema = config::schema();
    let tables = schema["$defs"].as_object().expect("the schema has definitions").values().chain([&schema]);
    for (key, value) in tables.flat_map(|table| table["properties"].as_object().into_iter().flatten()) {
        assert!(value["description"].is_string(), "{key}: {value}");
    }
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let text = "[upstreams.a]\nservers = ['a.example.com:1']\ntls.trust = 't'\n[trust.t]\nroots = ['ca.pem', '/ca.pem']\n\
                [[listeners]]\nlisten = 'unix:s'\nupstream = 'a'\n";
    let config = config::parse("/etc/egret/egret.toml", text, &environment).expect("the text is right").config;
    let paths = vec![PathBuf::from("/etc/egret/ca.pem"), PathBuf::from("/ca.pem")];
    assert_eq!(config.trusts[&Name::new("t")].anchors, Anchors::Roots { system: false, paths });
    assert_eq!(config.listeners[0].name, Name::new("unix:s"));
    let path = PathBuf::from("/etc/egret/s");
    assert_eq!(config.listeners[0].listen, ListenAddress::Unix { path, mode: 0o600 });
}

#[test]
fn variables_are_put_in_and_never_read_as_toml() {
    let text = "[log]\nlevel = 'info'\n[upstreams.a]\nservers = ['${TEST_HOST}:1']\n\
                tls = { verify = 'none', insecure_reason = '${TEST_QUOTE} $${X}' }\n\
                [[listeners]]\nlisten = '127.0.0.1:1'\nupstream = 'a'\n";
    let config = parse_text(text).expect("the text is right");
    let upstream = &config.upstreams[&Name::new("a")];
    assert_eq!(upstream.servers[0].to_string(), "db.example.com:1");
    assert!(format!("{:?}", upstream.tls.verify).contains(r#"\" $${HOME} ${HOME} ${X}"#), "{:?}", upstream.tls.verify);
}

/// What the documentation promises for keys that are left out.
#[test]
fn defaults_are_the_documented_ones() {
    let long = "drain_timeout = '30s'\nlog = { format = 'text', level = 'info' }\nreload = { watch = true }\n\
                dns = { min_ttl = '1s', max_ttl = '5m' }\n\
                [upstreams.a]\nservers = ['a.example.com:1']\noriginate_timeout = '10s'\nidle_timeout = '1h'\n\
                max_lifetime = 'never'\nhalf_closed_timeout = '60s'\neof = 'strict'\n\
                [upstreams.a.tls]\nsni = true\nverify = 'full'\nmin_version = '1.2'\nmax_version = '1.3'\n\
                alpn = []\nresumption = true\n\
                [[listeners]]\nname = 'n'\nlisten = '127.0.0.1:1'\nupstream = 'a'\n";
    let short = "[upstreams.a]\nservers = ['a.example.com:1']\n\
                 [[listeners]]\nname = 'n'\nlisten = '127.0.0.1:1'\nupstream = 'a'\n";
    assert_eq!(parse_text(long).expect("the text is right"), parse_text(short).expect("the text is right"));
}

#[test]
fn a_short_idle_timeout_shortens_the_default_for_half_closed_streams() {
    let text = "[upstreams.a]\nservers = ['a.example.com:1']\nidle_timeout = '5s'\n\
                [[listeners]]\nlisten = '127.0.0.1:1'\nupstream = 'a'\n";
    let config = parse_text(text).expect("the text is right");
    let upstream = &config.upstreams[&Name::new("a")];
    assert_eq!(Some(upstream.half_closed_timeout), upstream.idle_timeout);
}

#[test]
fn parts_can_be_found_again_in_the_text() {
    let loaded = parse(&root().join("config/postgres.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    let found = |place: Place<'_>| loaded.locate(place).map(|span| loaded.source().slice(&span).to_owned());
    assert_eq!(found(Place::Identity(&Name::new("app"))).as_deref(), Some("app"));
    assert_eq!(found(Place::Trust(&Name::new("database"))).as_deref(), Some("database"));
    assert_eq!(found(Place::Listener(&Name::new("postgres"))).as_deref(), Some("\"unix:/run/egret/.s.PGSQL.5432\""));
    assert_eq!(found(Place::Upstream(&Name::new("other"))), None);
    assert_eq!(found(Place::Admin(0)), None);
}

mod arguments {
    use super::*;

    fn run(line: &str) -> Result<Loaded, Problems> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        let Command::Run(run) = cli.command else { panic!("{line} is not run") };
        run.options.load(run.file.as_deref(), &environment)
    }

    #[test]
    fn a_tunnel_is_the_same_as_its_file() {
        let loaded = run("egret run --listen 127.0.0.1:8080 --to a.example.com:443 --to 192.0.2.1:443 --cert c.pem \
                          --key k.pem --server-name b.example.com --trust ca.pem --trust roots.d --upgrade postgres")
        .unwrap_or_else(|problems| panic!("{problems}"));
        let file = "[identities.default]\ncertificate = 'c.pem'\nprivate_key = 'k.pem'\n\
                    [trust.default]\nroots = ['ca.pem', 'roots.d']\n\
                    [upstreams.default]\nservers = ['a.example.com:443', '192.0.2.1:443']\nupgrade = 'postgres'\n\
                    tls = { identity = 'default', trust = 'default', server_name = 'b.example.com' }\n\
                    [[listeners]]\nlisten = '127.0.0.1:8080'\nupstream = 'default'\n";
        assert_eq!(loaded.config, parse_text(file).expect("the text is right"));
        assert_eq!(config::lint(&loaded), []);
    }

    #[test]
    fn problems_point_at_the_argument() {
        let Err(problems) = run("egret run --listen 0.0.0.0:80 --to a.example.com --upgrade postgre --server-name *.x")
        else {
            panic!("four mistakes pass");
        };
        let pointed: Vec<_> =
            problems.iter().filter_map(|problem| Some(problems.source().slice(problem.span.as_ref()?))).collect();
        assert_eq!(pointed, ["0.0.0.0:80", "a.example.com", "*.x", "postgre"]);
        let told = problems.to_string();
        assert!(told.contains("egret run --listen 0.0.0.0:80 --to a.example.com"), "{told}");
    }

    #[test]
    fn arguments_win_over_the_file() {
        let path = root().join("config/egress-gateway.toml");
        let loaded =
            run(&format!("egret run {} --log text --log-level debug --allow-loose-key-permissions", path.display()))
                .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config::document(&loaded.config)["log"]["level"], "debug");
        assert!(loaded.config.identities.values().all(|identity| identity.allow_loose_key_permissions));
    }
}

mod check {
    use super::*;

    fn check(file: &str, arguments: &str, files: FileCheck<'_>) -> (Verdict, String, String) {
        let path = root().join(file);
        let line = format!("egret check {} {arguments}", path.display());
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
        let Command::Check(check): Command = cli.command else { panic!("{line} is not check") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let verdict = Check::run(&check, &environment, files, &mut out, &mut err).expect("vectors take everything");
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        (verdict, text(out), text(err))
    }

    #[test]
    fn a_good_file_is_good_and_silent() {
        assert_eq!(
            check("config/minimal.toml", "--strict", &|_| Vec::new()),
            (Verdict::Good, String::new(), String::new())
        );
    }

    #[test]
    fn strict_refuses_what_is_only_advised_against() {
        let (verdict, _, err) = check("tests/config/valid/verify_none.toml", "", &|_| Vec::new());
        assert_eq!(verdict, Verdict::Good);
        assert!(err.contains("warning[verify-none]"), "{err}");
        let (verdict, ..) = check("tests/config/valid/verify_none.toml", "--strict", &|_| Vec::new());
        assert_eq!(verdict.code(), 2);
    }

    #[test]
    fn a_bad_file_is_told_and_counted() {
        let (verdict, out, err) = check("tests/config/invalid/many_mistakes.toml", "", &|_| Vec::new());
        assert_eq!((verdict.code(), out.as_str()), (2, ""));
        assert!(
            err.lines().last().is_some_and(|line| line.starts_with("egret: ") && line.contains(" problems in ")),
            "{err}"
        );
        let (_, out, _) = check("tests/config/invalid/many_mistakes.toml", "--json", &|_| Vec::new());
        let list: serde_json::Value = serde_json::from_str(&out).expect("the output is JSON");
        let list = list.as_array().expect("the output is an array");
        assert_eq!(list.len(), err.matches("\nerror: ").count() + 1);
        assert!(list.iter().all(|one| one["line"].is_u64() && one["severity"] == "error"), "{out}");
    }

    #[test]
    fn files_that_are_named_are_looked_at_after_the_text() {
        let wrong = |loaded: &Loaded| {
            let span = loaded.locate(Place::Identity(&Name::new("app"))).expect("the identity is there");
            vec![Problem::new(span, "certs/app.key cannot be read", "its key", "put it there")]
        };
        let (verdict, _, err) = check("config/postgres.toml", "", &wrong);
        assert_eq!(verdict, Verdict::Bad);
        assert!(err.contains("[identities.app]") && err.contains("1 problem in"), "{err}");
    }

    #[test]
    fn a_file_that_is_not_there_or_not_text_is_told() {
        let (verdict, _, err) = check("config/nothing.toml", "", &|_| Vec::new());
        assert!(verdict == Verdict::Bad && err.contains("cannot be read"), "{err}");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("latin.toml");
        fs::write(&path, b"drain_timeout = \"30s\"\n# caf\xe9\n").expect("a file can be written");
        let problems = config::load(&path, &environment).expect_err("Latin-1 passes");
        assert!(problems.to_string().contains("latin.toml:2:6"), "{problems}");
    }
}

/// Texts near to valid ones: an example with some of its bytes replaced, doubled or cut out.
fn damaged() -> impl Strategy<Value = String> {
    let texts: Vec<String> = ["config", "tests/config/valid", "tests/config/invalid"]
        .iter()
        .flat_map(|folder| files(folder))
        .map(|path| fs::read_to_string(path).expect("a case can be read"))
        .collect();
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\"",
            "'",
            "[",
            "]",
            "[[",
            "{",
            "}",
            "=",
            "\n",
            ",",
            ".",
            "${",
            "$${A",
            "\\u0000",
            "ä",
            "\u{feff}",
            "\u{202e}",
            "\u{e0041}"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece), 1..6);
    (prop::sample::select(texts), edits).prop_map(|(mut text, edits)| {
        for (at, cut, piece) in edits {
            let mut start = at.index(text.len() + 1);
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = (start + cut).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(start..end, &piece);
        }
        text
    })
}

/// Reads a text and draws all that can be told about it.
fn read_and_draw(text: &str) -> Result<(), TestCaseError> {
    match config::parse("x/test.toml", text, &environment) {
        Ok(loaded) => {
            for one in config::lint(&loaded) {
                prop_assert!(!one.render(&loaded, Style::Coloured).is_empty());
            }
        }
        Err(problems) => {
            prop_assert!(problems.count() > 0);
            prop_assert!(problems.to_string().contains("error: "));
            prop_assert!(!problems.render(Style::Coloured).is_empty());
            prop_assert_eq!(problems.to_json().as_array().map(Vec::len), Some(problems.count()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_told_about_without_a_panic(text in damaged()) {
        read_and_draw(&text)?;
    }

    #[test]
    fn any_text_is_told_about_without_a_panic(text in "(?s).{0,200}") {
        read_and_draw(&text)?;
    }

    #[test]
    fn any_arguments_are_told_about_without_a_panic(listen in "(?s).{0,40}", to in "(?s).{0,40}", name in "(?s).{0,40}") {
        let flags = config::flags::Flags { listen, to: vec![to], server_name: Some(name), ..Default::default() };
        if let Err(problems) = config::flags::from_flags(&flags) {
            prop_assert!(problems.to_string().contains("command line:1:"));
        }
    }
}

proptest! {
    /// Read back by the reader of configurations, it is what it was, and nothing of the environment is in it.
    #[test]
    fn whatever_a_stranger_is_called_stays_one_string(text in "[a-z\"\\\\$\\{\\}'\n\r\t\u{0}\u{7f}\u{85}=\\[\\]#.é]{1,24}") {
        let (key, value) = (key(&text), string(&text));
        let table: toml::Table = format!("{key} = {value}\n").parse().unwrap();
        prop_assert_eq!(table.keys().collect::<Vec<_>>(), [&text]);

        let whole = format!(
            "[upstreams.u]\nservers = ['a:1']\ntls = {{ verify = 'none', insecure_reason = {} }}\n\
             [[listeners]]\nlisten = '127.0.0.1:1'\nupstream = 'u'\n",
            string(&format!("it is {text}.")),
        );
        let loaded = config::parse("x.toml", &whole, &|_| Some("secret".to_owned())).unwrap();
        let verify = loaded.config.upstreams.into_values().next().unwrap().tls.verify;
        prop_assert_eq!(verify, Verify::None { reason: format!("it is {text}.") });
    }
}
