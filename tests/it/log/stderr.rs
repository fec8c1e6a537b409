//! Readers of stderr that stop, go, are slow, or whose disk is full.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use super::{Program, eventually, full_pipe};
use crate::lifecycle::Scene;

fn closed_pipe() -> OwnedFd {
    rustix::pipe::pipe().unwrap().1
}

fn full_disk() -> OwnedFd {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn traffic_reload_and_drain_go_on_whatever_reads_the_log() {
    let scene = Scene::new("");
    for format in ["text", "json"] {
        let (_blocking, full) = full_pipe();
        let (_shared, non_blocking) = full_pipe();
        rustix::io::ioctl_fionbio(&non_blocking, true).unwrap();
        let readers = [
            ("a reader that has stopped", full, false),
            ("a terminal without room that somebody made non-blocking", non_blocking, false),
            ("a reader that is gone", closed_pipe(), true),
            ("a full disk", full_disk(), true),
        ];
        for (reader, stderr, loses_at_once) in readers {
            let what = format!("{reader}, {format}");
            let mut egret = Program::start(&scene, &["--log", format], stderr);
            egret.works(&what);
            if loses_at_once {
                eventually(&format!("{what}: lines to be counted"), || {
                    (egret.metrics().sum("egret_log_dropped_total", &[]) >= 20.0).then_some(())
                });
            }
            assert_eq!(egret.stop(), Some(0), "{what}");
        }
    }
}

#[test]
fn advice_that_cannot_be_printed_does_not_stop_the_start() {
    let scene = Scene::new("");
    // Advice: nobody uses this trust.
    let unused = format!("[trust.unused]\nroots = [{:?}]\n", scene.pki.root());
    for (what, stderr) in [("full", full_pipe().1), ("gone", closed_pipe()), ("full disk", full_disk())] {
        let mut egret = Program::start_with(&scene, &unused, &[], stderr, |_| {});
        egret.works(what);
        assert_eq!(egret.stop(), Some(0), "{what}");
    }
}

#[test]
fn dropped_lines_are_counted_and_reported_once_there_is_room() {
    let scene = Scene::new("");
    let (reader, stderr) = full_pipe();
    let egret = Program::start(&scene, &["--log", "json"], stderr);
    let good = fs::read_to_string(egret.config()).unwrap();
    // Each refused reload is a line with a hundred drawn problems.
    fs::write(egret.config(), good.clone() + &"[nonsense]\nnonsense = 1\n".repeat(200)).unwrap();
    let dropped = eventually("lines to be dropped", || {
        assert_eq!(egret.admin("POST", "/reload").status, 422);
        let dropped = egret.metrics().sum("egret_log_dropped_total", &[]);
        (dropped > 0.0).then_some(dropped)
    });
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let report = lines.find(|line| line.contains("lines of the log were dropped")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["lines"].as_f64().is_some_and(|lines| lines >= dropped), "{report}");
    assert_eq!(report["total"].as_f64(), Some(egret.metrics().sum("egret_log_dropped_total", &[])), "{report}");
    fs::write(egret.config(), good).unwrap();
    assert_eq!(egret.admin("POST", "/reload").status, 200);
    lines.find(|line| line.contains("running generation 2")).expect("lines are written again");
}

#[test]
fn a_slow_reader_gets_every_line_to_the_last() {
    let scene = Scene::new("");
    let (mut reader, stderr) = full_pipe();
    let mut egret = Program::start(&scene, &["--log", "json"], stderr);
    egret.works("slow");
    let read = thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 1024]);
        while let Ok(length @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
            thread::sleep(Duration::from_micros(200));
        }
        String::from_utf8(text).unwrap()
    });
    assert_eq!(egret.stop(), Some(0));
    let text = read.join().unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    let connections = lines.iter().filter(|line| line["message"] == "connection").count();
    assert_eq!(connections, 21, "{text}");
    assert!(lines.last().unwrap()["message"].as_str().unwrap().starts_with("drained"), "{text}");
}
