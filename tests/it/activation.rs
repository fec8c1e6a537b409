//! Sockets of a supervisor, which outlive the process: a python program plays the part of systemd.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lifecycle::Scene;
use crate::support::egret::{binary, listener};
use crate::support::process::{Process, guarded};
use crate::support::{PATIENCE, eventually};

/// Binds, starts the program with the sockets as descriptors from 3 on, and starts it again each time that it ends, as it does
/// after SIGUSR1. A socket is `tcp`, or the path of a Unix socket.
const SUPERVISOR: &str = r#"
import fcntl, os, signal, socket, sys
names, places, *command = sys.argv[1:]
sockets = []
for number, place in enumerate(places.split(',')):
    listening = socket.socket(socket.AF_INET if place == 'tcp' else socket.AF_UNIX)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(('127.0.0.1', 0) if place == 'tcp' else place)
    listening.listen(4096)
    sockets.append(os.dup(listening.fileno()))
    print('socket', number, listening.getsockname()[1], flush=True)
    listening.close()
child = 0
def restart(*_):
    os.kill(child, signal.SIGTERM)
signal.signal(signal.SIGUSR1, restart)
while True:
    child = os.fork()
    if child == 0:
        held = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in sockets]
        for number, fd in enumerate(held):
            os.dup2(fd, 3 + number, inheritable=True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=names)
        # It ends with its supervisor, which the test kills.
        os.execv('/usr/bin/setpriv', ['setpriv', '--pdeathsig', 'KILL', *command])
    _, status = os.waitpid(child, 0)
    print('ended', os.waitstatus_to_exitcode(status), flush=True)
"#;

struct Supervised {
    process: Process,
    _scene: Scene,
    folder: tempfile::TempDir,
}

impl Supervised {
    /// With these sockets (name and place, a Unix socket's in the folder), and the listeners that this makes for the
    /// folder.
    fn start(sockets: &[(&str, &str)], listeners: &dyn Fn(&Path) -> String) -> Self {
        let scene = Scene::new("");
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("egret.toml");
        let text = "drain_timeout = \"5s\"\n[log]\nformat = \"json\"\n".to_owned()
            + &scene.upstream
            + &listeners(folder.path());
        std::fs::write(&config, text).unwrap();
        let place = |place: &str| match place {
            "tcp" => place.to_owned(),
            file => folder.path().join(file).display().to_string(),
        };
        let (names, places): (Vec<_>, Vec<_>) = sockets.iter().map(|(name, at)| (*name, place(at))).unzip();
        let mut command: Command = guarded("python3");
        command.args(["-c", SUPERVISOR, &names.join(":"), &places.join(",")]).arg(binary()).arg("run").arg(&config);
        let process = Process::spawn("supervisor", command, &folder.path().join("log"));
        Self { process, _scene: scene, folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The lines of egret's log with this message, once there are so many.
    fn lines(&self, message: &str, count: usize) -> Vec<serde_json::Value> {
        eventually(message, || {
            let output = self.process.output();
            let lines = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["message"] == message).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    fn socket(&self, number: usize) -> SocketAddr {
        let start = format!("socket {number} ");
        eventually("the supervisor's socket", || {
            let output = self.process.output();
            let port = output.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse::<u16>().ok())?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })
    }

    fn count(&self, text: &str) -> usize {
        self.process.output().matches(text).count()
    }
}

fn echo(address: SocketAddr) -> std::io::Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    echo_on(stream)
}

fn echo_unix(path: &Path) -> std::io::Result<()> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    echo_on(stream)
}

fn echo_on(mut stream: impl Read + Write) -> std::io::Result<()> {
    stream.write_all(b"ping")?;
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"ping");
    Ok(())
}

#[test]
fn listeners_take_the_sockets_of_their_name_and_bind_the_others() {
    let listeners = |_: &Path| listener("one", 0, "echo") + &listener("two", 0, "echo") + &listener("own", 0, "echo");
    let supervised = Supervised::start(&[("two", "tcp"), ("one", "tcp"), ("nobody", "tcp")], &listeners);
    echo(supervised.socket(0)).expect("the listener two");
    echo(supervised.socket(1)).expect("the listener one");
    let lines = supervised.lines("listening", 3);
    for line in lines {
        let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
        let wanted = match line["listener"].as_str().unwrap() {
            "one" => address == supervised.socket(1),
            "two" => address == supervised.socket(0),
            _ => (0..3).all(|number| address != supervised.socket(number)),
        };
        assert!(wanted, "{line}");
    }
}

fn unix_listener(name: &str, path: &Path) -> String {
    format!("[[listeners]]\nname = \"{name}\"\nlisten = \"unix:{}\"\nupstream = \"echo\"\n", path.display())
}

#[test]
fn a_socket_without_a_listener_is_logged_and_no_other() {
    let listeners = |folder: &Path| {
        listener("named", 0, "echo")
            + &unix_listener("anything", &folder.join("addressed"))
            // The name is that of a TCP socket.
            + &unix_listener("other-family", &folder.join("own"))
    };
    let sockets = [
        ("named", "tcp"),
        ("egret.socket", "addressed"),
        ("other-family", "tcp"),
        ("misspelt", "tcp"),
        ("egret.socket", "forgotten"),
    ];
    let supervised = Supervised::start(&sockets, &listeners);
    supervised.lines("listening", 3);
    let unclaimed = supervised.lines("no listener takes a socket that the supervisor passed", 3);
    let told: Vec<_> = unclaimed
        .iter()
        .map(|line| ["level", "name", "address"].map(|key| line[key].as_str().unwrap_or_else(|| panic!("{line}"))))
        .collect();
    let tcp = |number: usize| supervised.socket(number).to_string();
    let forgotten = format!("unix:{}", supervised.path("forgotten").display());
    assert_eq!(
        told,
        [["WARN", "other-family", &tcp(2)], ["WARN", "misspelt", &tcp(3)], ["WARN", "egret.socket", &forgotten],]
    );
}

#[test]
fn a_unix_socket_of_the_supervisor_stays_through_restarts_with_its_file_and_mode() {
    for (name, listener) in [("db", "db"), ("egret.socket", "by-its-path")] {
        let supervised =
            Supervised::start(&[(name, "socket")], &|folder| unix_listener(listener, &folder.join("socket")));
        supervised.lines("listening", 1);
        let path = supervised.path("socket");
        // Not the 0660 that egret gives to its own.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let file = || std::fs::metadata(&path).map(|metadata| (metadata.ino(), metadata.mode() & 0o777)).unwrap();
        let before = file();
        echo_unix(&path).expect("egret serves");
        for restarts in 1..=2 {
            supervised.process.signal(Signal::USR1);
            let mut ended = 0;
            // Through the end of one process and the start of the next.
            while ended < restarts || supervised.count("\"listening\"") <= restarts {
                echo_unix(&path).unwrap_or_else(|error| panic!("{error}\n{}", supervised.process.output()));
                ended = supervised.count("ended 0\n");
            }
        }
        assert_eq!(file(), before, "the file is the supervisor's");
    }
}

/// New connections in each second.
const RATE: u32 = 200;

#[test]
fn a_restart_refuses_and_resets_no_client() {
    let supervised = Supervised::start(&[("app", "tcp")], &|_| listener("app", 0, "echo"));
    let address = supervised.socket(0);
    echo(address).expect("egret serves");
    let mut clients = Vec::new();
    let began = Instant::now();
    let mut restarts = 0;
    while restarts < 3 || supervised.count("\"listening\"") <= restarts {
        if restarts < 3
            && supervised.count("\"listening\"") > restarts
            && clients.len() as u32 >= (restarts as u32 + 1) * RATE
        {
            supervised.process.signal(Signal::USR1);
            restarts += 1;
        }
        clients.push(std::thread::spawn(move || {
            let began = Instant::now();
            echo(address).map(|()| began.elapsed())
        }));
        std::thread::sleep(Duration::from_secs(1) / RATE);
        assert!(began.elapsed() < PATIENCE * 2, "{}", supervised.process.output());
    }
    let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}\n{}", failed.len(), outcomes.len(), supervised.process.output());
    let slowest = outcomes.into_iter().flatten().max();
    println!("{restarts} restarts; the slowest of all clients took {slowest:?}");
    assert_eq!(supervised.count("ended 0\n"), 3, "{}", supervised.process.output());
}
