"""The servers of the measurements: certificates, PostgreSQL, MariaDB, nginx and egret, on loopback, in one folder."""
import glob, os, pwd, socket, subprocess, sys, time

NAME = "db.example.com"
# PostgreSQL takes P-256 alone, which costs egret a second key share; nginx in front of it has to do the same.
POSTGRES_GROUP = "prime256v1"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def postgres_programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    if not found:
        sys.exit("benches/databases/run: install postgresql")
    return found[-1]


def own(account, *paths):
    """The options with which a program runs as this account; the paths belong to it."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(account)
    for path in paths:
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={account}", f"--regid={user.pw_gid}", "--clear-groups"]


class Stage:
    """A folder and the processes that live in it; `end` ends them all."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        os.chmod(folder, 0o755)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        self.openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca.example.com")
        self.openssl("req", "-x509", *key, "-keyout", "server.key", "-out", "server.pem", "-subj", f"/CN={NAME}", *signed,
                     "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost,IP:127.0.0.1")
        self.openssl("req", "-x509", *key, "-keyout", "app.key", "-out", "app.pem", "-subj", "/CN=app", *signed)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=self.folder, stderr=subprocess.DEVNULL)

    def spawn(self, name, command, ports, **options):
        log = self.path(f"{name}.log")
        with open(log, "w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        self.processes.append(process)
        for port in ports:
            for _ in range(600):
                if process.poll() is not None:
                    sys.exit(f"{name} has ended:\n{open(log).read()}")
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                sys.exit(f"{name}: nothing listens on port {port}")
        return process

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def postgres(self, connections=50):
        """Lets in `app` by its certificate over TLS, and by its name without TLS: the latter is for nginx."""
        number = len(self.processes)
        folder = self.path(f"postgres-{number}")
        os.mkdir(folder)
        for file in ("server.pem", "server.key", "ca.pem"):
            subprocess.run(["install", "-m", "600", self.path(file), folder], check=True)
        owner = own("postgres", folder, *glob.glob(f"{folder}/*"))
        programs, port = postgres_programs(), free_port()
        subprocess.run([*owner, f"{programs}/initdb", "--no-sync", "-U", "app", "-A", "reject", "-D", f"{folder}/data"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/")
        with open(f"{folder}/data/pg_hba.conf", "w") as rules:
            rules.write("hostssl all all all cert clientcert=verify-full\nhostnossl all all all trust\n")
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "ssl": "on",
                    "ssl_cert_file": f"{folder}/server.pem", "ssl_key_file": f"{folder}/server.key",
                    "ssl_ca_file": f"{folder}/ca.pem", "ssl_ecdh_curve": POSTGRES_GROUP, "max_connections": str(connections)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.spawn(f"postgres-{number}", [*owner, f"{programs}/postgres", "-D", f"{folder}/data", "-p", str(port), *options],
                   [port], cwd="/")
        return port

    def mariadb(self):
        """Lets in `app` with a certificate only; `plain`, for nginx, without."""
        folder, port = self.path("mariadb"), free_port()
        os.mkdir(folder)
        for file in ("server.pem", "server.key", "ca.pem"):
            subprocess.run(["install", "-m", "600", self.path(file), folder], check=True)
        owner = own("mysql", folder, *glob.glob(f"{folder}/*"))
        environment = {**os.environ, "TMPDIR": folder}
        subprocess.run([*owner, "mariadb-install-db", "--no-defaults", "--skip-test-db", f"--datadir={folder}/data",
                        "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL, env=environment)
        self.spawn("mariadb", [*owner, "mariadbd", "--no-defaults", f"--datadir={folder}/data", f"--port={port}",
                               "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid",
                               "--skip-name-resolve", "--host-cache-size=0", "--max-connections=200",
                               "--max-allowed-packet=64M", "--innodb-flush-log-at-trx-commit=0",
                               f"--ssl-ca={folder}/ca.pem", f"--ssl-cert={folder}/server.pem",
                               f"--ssl-key={folder}/server.key"], [port], env=environment)
        users = ("create user app@'%' identified by 'secret' require x509; create user plain@'%' identified by 'secret';"
                 "grant all on *.* to app@'%'; create database shop;")
        subprocess.run(["mariadb", "--no-defaults", "--user=root", f"--socket={folder}/socket", "--execute", users], check=True)
        return port

    def nginx(self, servers):
        """TLS in front of plaintext servers, by port and group, with the certificates of the databases and without sessions."""
        ports = {server: free_port() for server in servers}
        blocks = "".join(f"server {{ listen 127.0.0.1:{ports[server]} ssl; ssl_ecdh_curve {group}; "
                         f"proxy_pass 127.0.0.1:{server}; }}\n" for server, group in servers.items())
        with open(self.path("nginx.conf"), "w") as file:
            file.write(f"""load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1; daemon off; pid {self.path("nginx.pid")}; error_log {self.path("nginx-error.log")};
events {{ worker_connections 4096; }}
stream {{
    ssl_certificate {self.path("server.pem")}; ssl_certificate_key {self.path("server.key")};
    ssl_client_certificate {self.path("ca.pem")}; ssl_verify_client on; ssl_protocols TLSv1.3;
    ssl_session_tickets off; ssl_session_cache off; tcp_nodelay on;
    {blocks}}}
""")
        self.spawn("nginx", ["nginx", "-c", self.path("nginx.conf"), "-p", self.folder], ports.values())
        return ports

    def egret(self, binary, upstreams, tls=""):
        """One process for each upstream: its name, its servers, further keys; `tls` are further keys of TLS. Returns processes
        and ports by name."""
        started = {}
        for name, (servers, keys) in upstreams.items():
            listen = free_port()
            listed = ", ".join(f'"127.0.0.1:{port}"' for port in servers)
            with open(self.path(f"egret-{name}.toml"), "w") as file:
                file.write(f"""[identities.app]
certificate = "app.pem"
private_key = "app.key"
[trust.bench]
roots = ["ca.pem"]
[upstreams.db]
servers = [{listed}]
tls = {{ identity = "app", trust = "bench", server_name = "{NAME}"{tls} }}
{keys}
[[listeners]]
listen = "127.0.0.1:{listen}"
upstream = "db"
""")
            command = [binary, "run", self.path(f"egret-{name}.toml")]
            started[name] = (self.spawn(f"egret-{name}", command, [listen]), listen)
        return started


def cpu_seconds(process):
    """utime and stime of all threads."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
