"""Who is compared, and how each is told to do the same: one worker, verify the origin's chain and name, send SNI,
present a client certificate, prefer X25519. Everything else is at its default."""

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

_RELAY = ("@PROGRAM@", "relay", "--listen", "127.0.0.1:@LISTEN@", "--to", "@TO@",
          "--certificates", "@CERTIFICATES@", "--buffer", "@BUFFER@", "--mode")
REFERENCE = Proxy("reference", "@TOOLS@", (*_RELAY, "tls"), ours=True)
PLAIN = Proxy("plain", "@TOOLS@", (*_RELAY, "plain"), ours=True, plain=True)

PROXIES = {proxy.name: proxy for proxy in (EGRET, POOL, NGINX, HAPROXY, STUNNEL, REFERENCE, PLAIN)}

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
    """Its own release and that of its TLS library, in a few words."""
    if proxy.ours:
        return "of benches/peers/tools"
    done = subprocess.run([path, *proxy.version], capture_output=True, text=True, timeout=20, check=False)
    release = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return ", ".join(filter(None, (release[0] if release else "unknown", linked_openssl(path))))


def linked_openssl(path):
    """The release of the libcrypto that a program loads; None if that cannot be found out."""
    loaded = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    found = re.search(r"libcrypto\.so\S* => (\S+)", loaded)
    if not found:
        return None
    texts = re.findall(rb"OpenSSL (\d+\.\d+\.\w+)", Path(found[1]).read_bytes())
    return f"OpenSSL {texts[0].decode()}" if texts else None
