//! A real nginx.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::loopback;
use super::pki::{Pair, Pki};
use super::process::{Process, guarded};

/// A running nginx; its folder holds what it logs.
pub(crate) struct Nginx {
    _process: Process,
    folder: TempDir,
}

/// The line a client gets: what the server saw of it.
pub(crate) const SEEN: &str =
    "sni=$ssl_server_name dn=$ssl_client_s_dn verify=$ssl_client_verify reused=$ssl_session_reused $ssl_protocol";

impl Nginx {
    /// Starts with these server blocks; waits until all `ports` accept.
    pub(crate) fn start(http: &str, ports: &[u16]) -> Self {
        Self::start_with("", &format!("http {{ {HTTP} {http} }}"), ports)
    }

    /// The same for `stream`: TLS for a plain TCP server.
    pub(crate) fn start_stream(stream: &str, ports: &[u16]) -> Self {
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
        Self::start_with(module, &format!("stream {{ {stream} }}"), ports)
    }

    fn start_with(modules: &str, blocks: &str, ports: &[u16]) -> Self {
        let folder = TempDir::new().unwrap();
        // One process, in the foreground: its id is the one to end.
        let text = format!(
            "{modules}\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log info;\n\
             worker_rlimit_nofile 16384;\nevents {{ worker_connections 4096; }}\n{blocks}\n"
        );
        let config = folder.path().join("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut command = guarded("/usr/sbin/nginx");
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(&config);
        let mut process = Process::spawn("nginx", command, &folder.path().join("output.log"));
        for port in ports {
            process.wait_for_port(loopback(*port));
        }
        Self { _process: process, folder }
    }

    /// What it logged of errors, TLS alerts included.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

/// Everything that nginx would otherwise write outside its folder.
const HTTP: &str = "access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; \
     uwsgi_temp_path uwsgi; scgi_temp_path scgi; server_names_hash_bucket_size 128;";

/// A server block of the endpoint of the first seed: 200 to a client with a certificate, 403 to one
/// without, and what it saw to both.
pub(crate) fn certauth(port: u16, listen: &str, name: &str, protocols: &str, server: &Pair, pki: &Pki) -> String {
    let tls = tls(server, &pki.root(), protocols);
    format!(
        "server {{ listen 127.0.0.1:{port} ssl {listen}; server_name {name}; {tls} ssl_verify_client optional; \
         location / {{ if ($ssl_client_verify != SUCCESS) {{ return 403 \"{SEEN}\"; }} return 200 \"{SEEN}\"; }} }}\n"
    )
}

/// Certificate, key, versions, and whose client certificates are believed.
pub(crate) fn tls(server: &Pair, clients: &Path, protocols: &str) -> String {
    let Pair { certificate, key, .. } = server;
    format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_depth 3; ssl_protocols {protocols};",
        certificate.display(),
        key.display(),
        clients.display()
    )
}
