"""One function for each part of the page. Each returns its lines."""
import os, re, statistics, subprocess, time
from concurrent.futures import ThreadPoolExecutor

import clients, servers

POOL = "pool = {{ min_idle = {0}, max_idle = {1} }}\n"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1), *("| " + " | ".join(row) + " |" for row in rows)]


def cost(stage, options):
    """CPU of egret for a connection with an upgrade, and for one to the same database behind TLS without upgrade."""
    postgres, mariadb = stage.postgres(), stage.mariadb()
    behind = stage.nginx({postgres: servers.POSTGRES_GROUP, mariadb: "X25519"})
    pairs = {"PostgreSQL": ("postgres", postgres, lambda port, _: clients.postgres(port)),
             "MariaDB": ("mysql", mariadb, lambda port, user: clients.mariadb(port, user))}
    rows = []
    for name, (word, server, connect) in pairs.items():
        started = stage.egret(options.binary, {f"{word}-with": ([server], f'upgrade = "{word}"'),
                                               f"{word}-without": ([behind[server]], "")},
                               ", resumption = false")
        users = {f"{word}-with": "app", f"{word}-without": "plain"}
        figures = {kind: [] for kind in started}
        for kind, (_, port) in started.items():
            for _ in range(50):
                connect(port, users[kind])
        for _ in range(options.rounds):
            for kind, (process, port) in started.items():
                before = servers.cpu_seconds(process)
                for _ in range(options.connections):
                    connect(port, users[kind])
                figures[kind].append((servers.cpu_seconds(process) - before) * 1e6 / options.connections)
        with_upgrade, without = figures[f"{word}-with"], figures[f"{word}-without"]
        ratios = [one / other for one, other in zip(with_upgrade, without)]
        rows.append([name, f"{statistics.median(with_upgrade):.0f} µs", f"{statistics.median(without):.0f} µs",
                     f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}–{max(ratios):.2f}"])
    lines = table(["database", "with `upgrade`", "without", "ratio", "min–max"], rows)
    lines += ["", f"Medians of {options.rounds} interleaved rounds of {options.connections} connections, one `select 1` each. The "
              "way without `upgrade` goes to nginx, which terminates TLS in front of the same database with the same certificates. "
              "TLS 1.3, the same groups (P-256 with PostgreSQL, X25519 with MariaDB), no sessions, client certificates on both ways. At most 1.25 is wanted."]
    return lines


def connect(stage, options):
    """Connections a second: the client's own TLS, egret, egret with a pool."""
    server = stage.postgres()
    pool = POOL.format(8, 32)
    started = stage.egret(options.binary, {"egret": ([server], 'upgrade = "postgres"'),
                                           "pool": ([server], f'{pool}upgrade = "postgres"')})
    with open(stage.path("one.sql"), "w") as file:
        file.write("select 1;\n")
    direct = (f"host=localhost port={server} sslmode=verify-full sslrootcert={stage.path('ca.pem')} "
              f"sslcert={stage.path('app.pem')} sslkey={stage.path('app.key')} user=app dbname=postgres")
    ways = {"the client's own TLS": direct, "egret": through(started["egret"][1]), "egret with a pool": through(started["pool"][1])}
    figures = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, connection in ways.items():
            report = pgbench("-n", "-C", "-f", stage.path("one.sql"), "-c", "4", "-T", str(options.seconds), connection)
            figures[name].append(rate(report))
    rows = [[name, f"{statistics.median(rates):.0f}"] for name, rates in figures.items()]
    lines = table([f"PostgreSQL: `pgbench -C`, 4 clients, median of {options.rounds} x {options.seconds} s", "connections a second"], rows)
    server = stage.mariadb()
    pool = POOL.format(4, 16)
    started = stage.egret(options.binary, {"mysql-egret": ([server], 'upgrade = "mysql"'),
                                           "mysql-pool": ([server], f'{pool}upgrade = "mysql"')})
    tls = {"ssl_ca": stage.path("ca.pem"), "ssl_cert": stage.path("app.pem"), "ssl_key": stage.path("app.key"),
           "ssl_verify_cert": True, "ssl_verify_identity": True}
    ways = {"the client's own TLS": (server, tls), "egret": (started["mysql-egret"][1], None),
            "egret with a pool": (started["mysql-pool"][1], None)}
    times = {name: [] for name in ways}
    for port, own in ways.values():
        # The pool takes the capabilities of its first client.
        clients.mariadb(port, tls=own)
    time.sleep(1)
    for _ in range(options.connections):
        for name, (port, own) in ways.items():
            began = time.perf_counter()
            clients.mariadb(port, tls=own)
            times[name].append((time.perf_counter() - began) * 1000)
        # The pool fills.
        time.sleep(0.03)
    rows = [[name, f"{statistics.median(taken):.1f} ms", f"{statistics.quantiles(taken, n=10)[8]:.1f} ms"] for name, taken in times.items()]
    return [*lines, "", *table([f"MariaDB: connect, `select 1` and disconnect of PyMySQL, {options.connections} each", "median", "90 of 100"], rows)]


def through(port):
    return f"host=127.0.0.1 port={port} sslmode=disable user=app dbname=postgres"


def pgbench(*arguments):
    command = [f"{servers.postgres_programs()}/pgbench", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rate(report):
    return float(re.search(r"^tps = ([0-9.]+)", report, re.M)[1])


def load(stage, options):
    """100 clients of pgbench, with each of the modes that were asked for."""
    server = stage.postgres(connections=300)
    pool = POOL.format(8, 128)
    started = stage.egret(options.binary, {"egret": ([server], 'upgrade = "postgres"'),
                                           "pool": ([server], f'{pool}upgrade = "postgres"')})
    pgbench("--initialize", "--quiet", "--scale=10", through(started["egret"][1]))
    rows = []
    for mode in options.modes.split(","):
        for name, (_, port) in started.items():
            report = pgbench("-S", "-M", mode, "-c", "100", "-j", "2", "-T", str(options.seconds), through(port))
            done = int(re.search(r"actually processed: ([0-9]+)", report)[1])
            failed = int(re.search(r"failed transactions: ([0-9]+)", report)[1])
            rows.append([mode, "yes" if name == "pool" else "no", f"{done:,}", f"{failed}", f"{rate(report):,.0f}"])
    return table([f"`pgbench -S`, 100 clients, {options.seconds} s", "pool", "transactions", "failed", "a second"], rows)


def many(stage, options):
    """Connections to MariaDB, 16 at a time."""
    server = stage.mariadb()
    (_, port), = stage.egret(options.binary, {"egret": ([server], 'upgrade = "mysql"')}).values()
    failed = []

    def one(number):
        try:
            clients.mariadb(port, database="shop" if number % 2 else None)
        except Exception as error:
            failed.append(error)

    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(options.many)))
    taken = time.perf_counter() - began
    lines = table(["MariaDB", "connections", "failed", "time"],
                  [["connect, `select 1`, disconnect, 16 at a time", f"{options.many:,}", f"{len(failed)}", f"{taken:.0f} s"]])
    return lines + [f"The first failure: {failed[0]}" for _ in failed[:1]]


def dump(stage, options):
    """A dump and a restore through egret; the sums of the rows are equal."""
    server = stage.mariadb()
    (_, port), = stage.egret(options.binary, {"egret": ([server], 'upgrade = "mysql"')}).values()
    login = ["--no-defaults", "--host=127.0.0.1", f"--port={port}", "--user=app", "--password=secret"]
    if "skip-ssl" in subprocess.run(["mariadb", "--help"], capture_output=True, text=True).stdout:
        login.append("--skip-ssl")

    def ask(query):
        command = ["mariadb", *login, "--batch", "--skip-column-names", "--execute", query]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    # As hexadecimal digits a byte takes two.
    rows = options.mebibytes * 16 // 2
    ask("use shop; create table shop.big (id int primary key, body longblob); insert into shop.big "
        f"select seq, repeat(char(seq % 251), 65536) from shop. seq_1_to_{rows}")
    sums = "select count(*), sum(length(body)), sum(crc32(body)) from shop.big"
    before, file = ask(sums), stage.path("dump.sql")
    began = time.perf_counter()
    subprocess.run(["mariadb-dump", *login, "--hex-blob", f"--result-file={file}", "shop"], check=True)
    dumped = time.perf_counter() - began
    ask("drop table shop.big")
    began = time.perf_counter()
    with open(file) as content:
        subprocess.run(["mariadb", *login, "--max-allowed-packet=64M", "shop"], check=True, stdin=content)
    restored = time.perf_counter() - began
    equal = "equal" if ask(sums) == before else "NOT EQUAL"
    size = os.path.getsize(file) / (1 << 20)
    return table(["MariaDB", "size", "dump", "restore", "sums of the rows"],
                 [["`mariadb-dump` and `mariadb`", f"{size:.0f} MiB", f"{dumped:.1f} s", f"{restored:.1f} s", equal]])


def cancels(stage, options):
    """Requests to cancel, with two servers in turn: each has to end the query of its own session and of no other."""
    ports = [stage.postgres(), stage.postgres()]
    (_, port), = stage.egret(options.binary, {"egret": (ports, 'upgrade = "postgres"\nbalance = "round_robin"')}).values()
    sessions = [clients.Session(port) for _ in range(20)]
    right = wrong = 0
    began = time.perf_counter()
    while right + wrong < options.cancels:
        for session in sessions:
            session.send("do $$ begin raise notice 'begun'; perform pg_sleep(600); end $$")
            session.until(b"N")
        for session in sessions:
            session.cancel(port)
            error = session.until(b"Z")
            is_right = error is not None and b"canceling statement due to user request" in error
            right, wrong = right + is_right, wrong + (not is_right)
    taken = time.perf_counter() - began
    others = sum(session.query("select 1") is not None for session in sessions)
    return table(["PostgreSQL, two servers", "cancels", "that ended the right query", "other queries that ended", "time"],
                 [["20 sessions by turns", f"{right + wrong:,}", f"{right:,}", f"{wrong + others}", f"{taken:.0f} s"]])


ALL = {"cost": cost, "connect": connect, "load": load, "many": many, "dump": dump, "cancels": cancels}
