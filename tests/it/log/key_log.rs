//! Secrets for Wireshark through a FIFO: nobody waits for Wireshark.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use tempfile::TempDir;

use super::{Program, fifo, fill};
use crate::lifecycle::Scene;

fn with_key_log(scene: &Scene, path: &std::path::Path) -> Program {
    Program::start(scene, &["--key-log", path.to_str().unwrap()], Stdio::null())
}

#[test]
fn a_fifo_without_a_reader_stops_neither_start_nor_streams_and_keeps_the_secrets_for_one() {
    let (scene, folder) = (Scene::new(""), TempDir::new().unwrap());
    let path = folder.path().join("keys");
    fifo(&path);
    let mut egret = with_key_log(&scene, &path);
    egret.works("no reader");
    let line = BufReader::new(File::open(&path).unwrap()).lines().next().unwrap().unwrap();
    assert!(line.contains("_SECRET"), "{line}");
    assert_eq!(egret.stop(), Some(0));
}

#[test]
fn a_fifo_without_room_stops_neither_streams_nor_the_end() {
    let (scene, folder) = (Scene::new(""), TempDir::new().unwrap());
    let path = folder.path().join("keys");
    fifo(&path);
    let other = File::options().read(true).write(true).open(&path).unwrap().into();
    fill(&other);
    let mut egret = with_key_log(&scene, &path);
    egret.works("no room");
    assert_eq!(egret.stop(), Some(0));
}

#[test]
fn a_file_has_every_secret_when_the_process_has_ended() {
    let (scene, folder) = (Scene::new(""), TempDir::new().unwrap());
    let path = folder.path().join("keys");
    let mut egret = with_key_log(&scene, &path);
    egret.works("a file");
    assert_eq!(egret.metrics().sum("egret_key_log_dropped_total", &[]), 0.0);
    assert_eq!(egret.stop(), Some(0));
    let text = fs::read_to_string(&path).unwrap();
    let sessions = text.lines().filter(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0")).count();
    assert_eq!(sessions, 21, "{text}");
}
