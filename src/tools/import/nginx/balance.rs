//! Several servers: which of them gets a stream, how much of them it may take, and what becomes of one that fails.

use std::time::Duration;

use crate::tools::import::draft::{Ejection, Server};
use crate::tools::import::findings::BALANCING;
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::ServerLine;
use crate::tools::import::nginx::scope::time;

pub(super) fn server(line: &ServerLine<'_>, address: String) -> Server {
    let count = |name: &str| line.parameter(name).and_then(|text| text.parse::<u32>().ok()).filter(|count| *count > 0);
    Server {
        address,
        weight: count("weight").filter(|weight| *weight > 1),
        reserve: line.has("backup"),
        max_connections: count("max_conns"),
    }
}

pub(super) fn lost<'a>(line: &'a ServerLine<'_>, lines: &[ServerLine<'_>]) -> Vec<&'a str> {
    let ejection = ejection(lines).is_some();
    let words = line.directive.arguments.iter().skip(1).map(|word| word.text.as_str());
    let carried = |word: &&str| match word.split_once('=') {
        None => ["down", "backup", "resolve"].contains(word),
        Some(("weight" | "max_conns", number)) => number.parse::<u32>().is_ok(),
        Some(("max_fails" | "fail_timeout", _)) => ejection,
        Some(_) => false,
    };
    words.filter(|word| !carried(word)).collect()
}

/// `None` unless it is set, and equal for all servers in use.
pub(super) fn ejection(lines: &[ServerLine<'_>]) -> Option<Ejection> {
    let used = || lines.iter().filter(|line| !line.has("down"));
    let said =
        |line: &ServerLine<'_>| ["max_fails", "fail_timeout"].map(|name| line.parameter(name).map(str::to_owned));
    let [fails, pause] = said(used().next()?);
    if (fails.is_none() && pause.is_none()) || used().any(|line| said(line) != [fails.clone(), pause.clone()]) {
        return None;
    }
    // The defaults of nginx beside the one that is said.
    let failures = fails.map_or(Some(1), |text| text.parse().ok())?;
    let pause = pause.map_or(Some(Duration::from_secs(10)), |text| time(&text)).filter(|pause| !pause.is_zero())?;
    Some(if failures == 0 { Ejection::Never } else { Ejection::After(failures, pause) })
}

impl Importer<'_> {
    /// `None`: as egret does by default.
    pub(super) fn balance(&mut self, block: &Directive, lines: &[ServerLine<'_>]) -> Option<&'static str> {
        let method = block.children().iter().find(|directive| METHODS.contains(&directive.name.text.as_str()));
        let several =
            |reserve: bool| lines.iter().filter(|line| !line.has("down") && line.has("backup") == reserve).count() > 1;
        let Some(method) = method else { return (several(false) || several(true)).then_some("round_robin") };
        match method.name.text.as_str() {
            "least_conn" => self.carried(method, "upstreams: balance"),
            "random" => self.carried(method, "upstreams: balance, of two at random the one with fewer streams"),
            _ if !several(false) => self.listed(method, "there is one server to choose from"),
            name => {
                let title = match name {
                    "least_time" => "nginx takes the server that answers soonest",
                    _ => "nginx keeps clients to the same server",
                };
                let repair = "egret takes the one with fewer streams; `balance` has other ways";
                self.find(BALANCING, method, title, "chosen in another way", repair);
            }
        }
        None
    }
}

const METHODS: [&str; 6] = ["least_conn", "hash", "ip_hash", "random", "least_time", "sticky"];
