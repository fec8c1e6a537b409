"""Who is compared, and how each is told to do the same: one worker, verify the origin's chain and name, send SNI,
present a client certificate, prefer X25519. Everything else is at its default. `built` is about programs that a person has
built."""

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

NAME = "origin.example.com"


@dataclass(frozen=True)
class Proxy:
    """One competitor. Placeholders of command and configuration are listed in `fill`."""

    name: str
    program: str
    command: tuple
    version: tuple = ()
    file: str = ""
    text: str = ""
    # Takes the origin's plain port: the limit, not a competitor.
    plain: bool = False
    # One of the tools of this folder.
    ours: bool = False
    # Has something ready before a client comes, and is measured only where that is the question.
    pooled: bool = False
    # Is left out where its program is missing.
    optional: bool = False


EGRET = Proxy(
    "egret", "@ROOT@/target/release/egret", ("@PROGRAM@", "run", "@FOLDER@/egret.toml"), ("--version",), "egret.toml", """
drain_timeout = "1s"
log.level = "error"
runtime.workers = 1
reload.watch = false

[identities.client]
certificate = "@CERTIFICATES@/client.crt"
private_key = "@CERTIFICATES@/client.key"

[trust.origin]
roots = ["@CERTIFICATES@/ca.crt"]

[upstreams.origin]
servers = ["@TO@"]
tls = { identity = "client", trust = "origin", server_name = "@NAME@", key_exchange = ["x25519", "secp256r1"] }

[[listeners]]
listen = "127.0.0.1:@LISTEN@"
upstream = "origin"
""")

POOL = replace(EGRET, name="egret-pool", pooled=True, text=EGRET.text.replace(
    "[upstreams.origin]", "[upstreams.origin]\npool = { min_idle = 2, max_idle = 16 }"))

NGINX = Proxy(
    "nginx", "/usr/sbin/nginx", ("@PROGRAM@", "-p", "@FOLDER@", "-e", "@FOLDER@/error.log", "-c", "@FOLDER@/nginx.conf"),
    ("-v",), "nginx.conf", """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile @FILES@;
pid @FOLDER@/nginx.pid;
error_log @FOLDER@/error.log crit;
events { worker_connections @FILES@; }
stream {
    server {
        listen 127.0.0.1:@LISTEN@ backlog=4096;
        proxy_pass @TO@;
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_conf_command Groups X25519:P-256;
        proxy_ssl_server_name on;
        proxy_ssl_name @NAME@;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate @CERTIFICATES@/ca.crt;
        proxy_ssl_certificate @CERTIFICATES@/client.crt;
        proxy_ssl_certificate_key @CERTIFICATES@/client.key;
    }
}
""")

HAPROXY = Proxy(
    "haproxy", "/usr/sbin/haproxy", ("@PROGRAM@", "-db", "-q", "-f", "@FOLDER@/haproxy.cfg"), ("-v",), "haproxy.cfg", """
global
    nbthread 1
    maxconn @STREAMS@
defaults
    mode tcp
    timeout connect 10s
    timeout client 5m
    timeout server 5m
listen bench
    bind 127.0.0.1:@LISTEN@ backlog 4096
    server origin @TO@ ssl verify required ca-file @CERTIFICATES@/ca.crt verifyhost @NAME@ sni str(@NAME@) crt @CERTIFICATES@/client.pem
""")

STUNNEL = Proxy(
    "stunnel", "/usr/bin/stunnel4", ("@PROGRAM@", "@FOLDER@/stunnel.conf"), ("-version",), "stunnel.conf", """
foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[origin]
client = yes
accept = 127.0.0.1:@LISTEN@
connect = @TO@
CAfile = @CERTIFICATES@/ca.crt
verifyChain = yes
checkHost = @NAME@
sni = @NAME@
cert = @CERTIFICATES@/client.crt
key = @CERTIFICATES@/client.key
curves = X25519:P-256
""")

# `benches/peers/run` brings it from PyPI.
ENVOY = Proxy(
    "envoy", "@ROOT@/target/peers/envoy/envoy/_bin/envoy",
    ("@PROGRAM@", "-c", "@FOLDER@/envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"), ("--version",),
    "envoy.yaml", """
node: {id: bench, cluster: bench}
static_resources:
  listeners:
  - name: bench
    address: {socket_address: {address: 127.0.0.1, port_value: @LISTEN@}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: origin
  clusters:
  - name: origin
    connect_timeout: 10s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000}]}
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: @HOST@, port_value: @PORT@}}}}]
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: @NAME@
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519, P-256]}
          tls_certificates:
          - {certificate_chain: {filename: @CERTIFICATES@/client.crt}, private_key: {filename: @CERTIFICATES@/client.key}}
          validation_context:
            trusted_ca: {filename: @CERTIFICATES@/ca.crt}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: @NAME@}}]
""", optional=True)

GHOSTUNNEL = Proxy("ghostunnel", "ghostunnel", (
    "/usr/bin/env", "GOMAXPROCS=1", "GODEBUG=tlsmlkem=0", "@PROGRAM@", "client", "--quiet=all", "--listen=127.0.0.1:@LISTEN@",
    "--target=@TO@", "--override-server-name=@NAME@", "--cert=@CERTIFICATES@/client.crt", "--key=@CERTIFICATES@/client.key",
    "--cacert=@CERTIFICATES@/ca.crt"), ("--version",))

_RELAY = ("@PROGRAM@", "relay", "--listen", "127.0.0.1:@LISTEN@", "--to", "@TO@",
          "--certificates", "@CERTIFICATES@", "--buffer", "@BUFFER@", "--mode")
REFERENCE = Proxy("reference", "@TOOLS@", (*_RELAY, "tls"), ours=True)
PLAIN = Proxy("plain", "@TOOLS@", (*_RELAY, "plain"), ours=True, plain=True)

PROXIES = {proxy.name: proxy for proxy in (EGRET, POOL, NGINX, HAPROXY, STUNNEL, ENVOY, REFERENCE, PLAIN)}

# The origin of `http`, which wrk talks to through the proxies.
HTTP_ORIGIN = """
daemon off;
worker_processes 1;
pid @FOLDER@/origin.pid;
error_log @FOLDER@/origin.log crit;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path @FOLDER@/body; proxy_temp_path @FOLDER@/proxy; fastcgi_temp_path @FOLDER@/fastcgi;
    uwsgi_temp_path @FOLDER@/uwsgi; scgi_temp_path @FOLDER@/scgi;
    server {
        listen 127.0.0.1:@TLS@ ssl backlog=4096;
        listen 127.0.0.1:@PLAIN@ backlog=4096;
        ssl_certificate @CERTIFICATES@/origin.crt;
        ssl_certificate_key @CERTIFICATES@/origin.key;
        ssl_client_certificate @CERTIFICATES@/ca.crt;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        root @FOLDER@/www;
        open_file_cache max=16;
    }
}
"""


def fill(text, values):
    """Puts values in the place of @KEYS@; an unknown key is an error."""
    return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)


def program(proxy, values):
    """Where its program is, or None."""
    return shutil.which(fill(proxy.program, values))


def version(proxy, path):
    """Its own release and its TLS library, in a few words."""
    if proxy.ours:
        return "of benches/peers/tools"
    said = ask(path, *proxy.version)
    release = re.search(r"\d+\.\d+[\w.+~-]*", said)
    return ", ".join(filter(None, (release[0] if release else "unknown", library(path))))


def ask(path, *words):
    """What a program says of itself; nothing, if it does not know the words."""
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Kind:
    """A program that a person may have built: how it is asked, and by what it is known."""

    proxy: Proxy
    option: str
    known_by: str
    # What it says of its TLS library, the one that it runs with before the one that it was built with.
    library: tuple


KINDS = (
    Kind(NGINX, "-V", r"^nginx version:", (r"running with ([^)\n]+)", r"built with ((?!by )[^\n]+)")),
    Kind(HAPROXY, "-vv", r"^HAProxy version", (
        r"^Running on (?:OpenSSL|SSL library) version : (.+)", r"^Built with (?:OpenSSL|SSL library) version : (.+)")),
    Kind(STUNNEL, "-version", r"stunnel \d", (r"[Rr]unning\s+with (\S+ \d\S+)", r"Compiled/running with (\S+ \d\S+)")),
    Kind(ENVOY, "--version", r"envoy\s+version:", (r"/(\w*SSL[\w-]*|AWS-LC\S*)\s*$",)),
    Kind(GHOSTUNNEL, "--version", r"ghostunnel|^(?:master|v?\d[\d.]*)\s*$", ()),
)


def kind_of(path):
    """What a program is, and what it said; None, if it is none of those that can be compared."""
    for kind in KINDS:
        said = ask(path, kind.option)
        if re.search(kind.known_by, said, re.MULTILINE):
            return kind, said
    return None


def library(path):
    """The TLS library of a program: what it says itself, else what it links; None if that cannot be found out."""
    found = kind_of(path)
    if found is None:
        return linked_openssl(path)
    kind, said = found
    named = (re.search(pattern, said, re.MULTILINE) for pattern in kind.library)
    words = next((match[1].strip() for match in named if match), None)
    if kind.proxy is GHOSTUNNEL and (release := re.search(rb"\bgo1\.\d+(?:\.\d+)?\b", Path(path).read_bytes())):
        words = f"crypto/tls of {release[0].decode()}"
    # Without the date of a release.
    return re.sub(r" +\d{1,2} \w{3} \d{4}.*| *\(Library:.*", "", words) if words else linked_openssl(path)


def built(name, path):
    """A proxy of a program that a person has built: as its kind, with what this program has and lacks."""
    found = kind_of(path)
    if found is None:
        raise ValueError(f"{path} is none of {', '.join(kind.proxy.name for kind in KINDS)}")
    kind, said = found
    proxy = replace(kind.proxy, name=name, program=str(Path(path).resolve()), optional=False)
    # 64 KiB of buffers in bulk, as egret and the references have them.
    if kind.proxy is NGINX:
        text = proxy.text.replace("proxy_ssl on;", "proxy_buffer_size @BUFFERKIB@k;\n        proxy_ssl on;")
        if "--with-stream=dynamic" not in said:
            text = re.sub(r"load_module.*\n", "", text)
        if "AWS-LC" in said or "BoringSSL" in said:
            # They have no such command; they offer X25519 among others, and the origin takes it.
            text = re.sub(r" *proxy_ssl_conf_command.*\n", "", text)
        return replace(proxy, text=text)
    if kind.proxy is HAPROXY:
        text = proxy.text.replace("nbthread 1", "nbthread 1\n    tune.bufsize @BUFFERBYTES@")
        release = re.search(r"version (\d+)\.(\d+)", said)
        if release and (int(release[1]), int(release[2])) >= (3, 0):
            text = text.replace(" ssl verify", " ssl curves X25519:P-256 verify")
        return replace(proxy, text=text)
    return proxy


def linked_openssl(path):
    """The release of the libcrypto that a program loads; None if that cannot be found out."""
    loaded = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    found = re.search(r"libcrypto\.so\S* => (\S+)", loaded)
    if not found:
        return None
    texts = re.findall(rb"OpenSSL (\d+\.\d+\.\w+)", Path(found[1]).read_bytes())
    return f"OpenSSL {texts[0].decode()}" if texts else None
