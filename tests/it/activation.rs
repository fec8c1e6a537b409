//! Sockets of a supervisor, which outlive the process: a python program plays the part of systemd.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lifecycle::Scene;
use crate::support::egret::{binary, listener};
use crate::support::process::{Process, guarded};
use crate::support::{PATIENCE, eventually};

/// Binds, starts the program with the socket as descriptor 3, and starts it again each time that it ends after SIGUSR1.
const SUPERVISOR: &str = r#"
import fcntl, os, signal, socket, sys
names, count, *command = sys.argv[1:]
sockets = []
for number in range(int(count)):
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(('127.0.0.1', 0))
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
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count, LISTEN_FDNAMES=names)
        # It ends with its supervisor, which the test kills.
        os.execv('/usr/bin/setpriv', ['setpriv', '--pdeathsig', 'KILL', *command])
    _, status = os.waitpid(child, 0)
    print('ended', os.waitstatus_to_exitcode(status), flush=True)
"#;

struct Supervised {
    process: Process,
    _scene: Scene,
    _folder: tempfile::TempDir,
}

impl Supervised {
    fn start(names: &str, count: usize, listeners: &dyn Fn(&Scene) -> String) -> Self {
        let scene = Scene::new("");
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("egret.toml");
        let text =
            "drain_timeout = \"5s\"\n[log]\nformat = \"json\"\n".to_owned() + &scene.upstream + &listeners(&scene);
        std::fs::write(&config, text).unwrap();
        let mut command: Command = guarded("python3");
        command.args(["-c", SUPERVISOR, names, &count.to_string()]).arg(binary()).arg("run").arg(&config);
        let process = Process::spawn("supervisor", command, &folder.path().join("log"));
        Self { process, _scene: scene, _folder: folder }
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
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"ping");
    Ok(())
}

#[test]
fn listeners_take_the_sockets_of_their_name_and_bind_the_others() {
    let listeners = |_: &Scene| listener("one", 0, "echo") + &listener("two", 0, "echo") + &listener("own", 0, "echo");
    let supervised = Supervised::start("two:one:nobody", 3, &listeners);
    echo(supervised.socket(0)).expect("the listener two");
    echo(supervised.socket(1)).expect("the listener one");
    let lines = eventually("three listeners", || {
        let output = supervised.process.output();
        let lines: Vec<serde_json::Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines: Vec<_> = lines.into_iter().filter(|line| line["message"] == "listening").collect();
        (lines.len() == 3).then_some(lines)
    });
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

/// New connections in each second.
const RATE: u32 = 200;

#[test]
fn a_restart_refuses_and_resets_no_client() {
    let supervised = Supervised::start("app", 1, &|_| listener("app", 0, "echo"));
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
