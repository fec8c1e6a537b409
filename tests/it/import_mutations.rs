//! Configurations with bytes, lines and words changed at random: no panic, every directive has one outcome, and what is
//! written loads. `EGRET_MUTATIONS=10000` makes the run long.

use std::env;
use std::fs;
use std::path::Path;

use egret::config::Style;
use egret::tools::import::files::{Files, ReadError};
use egret::tools::import::{Options, nginx, stunnel};

/// One text, and nothing else.
struct Text(String);

impl Files for Text {
    fn main(&self, _: &Path) -> Result<String, ReadError> {
        if self.0.contains('\0') { Err(ReadError::NotText) } else { Ok(self.0.clone()) }
    }

    fn read(&self, _: &Path) -> Result<String, ReadError> {
        Err(ReadError::System(std::io::ErrorKind::NotFound.into()))
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }
}

/// The configurations of one program among the cases.
fn seeds(name: &str) -> Vec<String> {
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")).unwrap();
    let mut paths: Vec<_> = cases.map(|case| case.unwrap().path().join(name)).filter(|path| path.exists()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Signs that mean something to one of the readers, or to the writer.
const SIGNS: [&str; 16] =
    [";", "{", "}", "\"", "'", "\\", "$", "${", "#", "\n", "\0", "\u{202e}", "[", "]", "= ", "~^(.*)$ x;"];

fn mutated(seeds: &[String], random: &mut fastrand::Rng) -> String {
    let mut text: Vec<char> = seeds[random.usize(..seeds.len())].chars().collect();
    for _ in 0..random.usize(1..6) {
        let (at, length) = (random.usize(..text.len().max(1)), random.usize(..20));
        let end = (at + length).min(text.len());
        match random.u8(..5) {
            0 => drop(text.drain(at.min(end)..end)),
            1 => drop(text.splice(at..at, SIGNS[random.usize(..SIGNS.len())].chars())),
            2 => drop(text.splice(at..at, text[at.min(end)..end].to_vec())),
            3 => {
                let other: Vec<char> = seeds[random.usize(..seeds.len())].chars().collect();
                let from = random.usize(..other.len());
                drop(text.splice(at..at, other[from..(from + 60).min(other.len())].to_vec()));
            }
            _ if at < text.len() => text[at] = random.char('\0'..='\u{2fff}'),
            _ => {}
        }
    }
    text.into_iter().collect()
}

fn run(program: &str) {
    let count = env::var("EGRET_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let seeds = seeds(&format!("{program}.conf"));
    let mut random = fastrand::Rng::with_seed(20);
    let mut imported = 0;
    for _ in 0..count {
        let text = mutated(&seeds, &mut random);
        let options = Options { faithful: random.bool(), redact: random.u8(..4) == 0, ..Options::default() };
        let files = Text(text.clone());
        let result = match program {
            "nginx" => nginx::import(&files, Path::new("main"), &options),
            _ => stunnel::import(&files, Path::new("main"), &options),
        };
        let Ok(done) = result else { continue };
        imported += 1;
        assert!(done.broken.is_none(), "does not load: {}\n{text}", done.broken.unwrap());
        let [all, carried, found, listed] = done.report.counts();
        assert_eq!(carried + found + listed, all, "{text}");
        assert!(done.render(Style::Plain).ends_with('\n'), "{text}");
    }
    assert!(imported * 10 > count, "most mutations were read by nobody: {imported} of {count}");
}

#[test]
fn mutations_of_nginx_lose_nothing_in_silence() {
    run("nginx");
}

#[test]
fn mutations_of_stunnel_lose_nothing_in_silence() {
    run("stunnel");
}
