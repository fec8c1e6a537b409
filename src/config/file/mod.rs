//! The configuration as typed: a mirror of the file, key by key, each value parsed on its own.
//!
//! The doc comment of a key is what editors show: they become descriptions in the JSON schema.
//! `config::resolve` decides how keys combine.

mod servers;

use std::time::Duration;

use ipnet::IpNet;

pub(crate) use self::servers::{ActiveCheck, Ejection, Listed, ServerTable};
pub use self::servers::{CheckSettings, EjectionSettings};
use crate::config::formats::{
    Alpn, AnswerWord, Bytes, CertificateText, Congestion, DnsServer, Limit, Listen, Location, LogLevel, Mode, Pin,
    Reason, Reference, ServedName, VerifyWord,
};
use crate::config::read::{Amount, Count, Given, Named, OneOrMany, Processor, section};
use crate::config::terms::{
    AdminRole, Eof, ExpectedName, Hardening, KernelTls, KeyExchange, KeyShare, LogFormat, Name, NamePattern, Readiness,
    Strategy, TlsVersion, User,
};
use crate::protocols::Upgrade;

pub(crate) type List<T> = Vec<Given<T>>;

section! {
    /// The configuration of egret.
    ///
    /// Every string may hold `${NAME}`, which stands for the environment variable NAME; `$${` is a literal `${`.
    /// Relative paths start at the folder of the file.
    struct File {
        /// Time that streams have to finish after SIGTERM before they are reset. A duration: `ms`, `s`, `m`, `h`, `d`.
        /// Default: "30s".
        drain_timeout: Duration,
        /// When `/readyz` answers 200: "listeners", as soon as connections are accepted; "upstreams", only while every
        /// upstream that a listener leads to has been reached by egret itself, and has a healthy address. Default:
        /// "listeners".
        readiness: Readiness,
        /// How the log is written.
        log: Log,
        /// Threads.
        runtime: Runtime,
        /// Bounds of the whole process.
        limits: Limits,
        /// Name resolution.
        dns: Dns,
        /// Admin addresses: metrics, probes, status, reload, drain; one table, or `[[admin]]` for each. Default: none.
        admin: OneOrMany<Admin>,
        /// What starts a reload besides SIGHUP and `POST /reload`.
        reload: Reload,
        /// Client certificates with their private keys, each under a name.
        identities: Named<Identity>,
        /// What makes a server trusted, each under a name.
        trust: Named<Trust>,
        /// Destinations, each under a name.
        upstreams: Named<Upstream>,
        /// Addresses on which connections are accepted, and the upstream of each. At least one.
        listeners: List<Listener>,
    }
}

section! {
    /// How the log is written.
    struct Log runs as #[derive(Eq)] LogSettings {
        /// Format of a line: "text" for people, "json" for programs.
        format: LogFormat = "text",
        /// Log level: off, error, warn, info, debug or trace, with exceptions for single modules
        /// after a comma.
        level: LogLevel = "info",
    }
}

section! {
    /// Threads.
    struct Runtime runs as #[derive(Eq)] RuntimeSettings {
        /// Worker threads, at most 1024. Default: one per processor.
        workers: Count,
        /// Numbers of the processors that all threads run on; empty: those that the system allows.
        affinity: List<Processor> = [],
        /// Whether the kernel may encrypt and decrypt TLS records: "off", "auto" where nothing is lost by it, or
        /// "prefer" wherever it can, though a change of keys may then end a stream.
        kernel_tls: KernelTls = "off",
        /// Whether egret gives up, at its start, rights that it does not need: "on", as far as the kernel can; "off".
        hardening: Hardening = "on",
    }
}

section! {
    /// Bounds of the whole process.
    struct Limits runs as #[derive(Eq)] LimitSettings {
        /// Concurrent connections, over all listeners. Default and upper limit: what the limit of open files allows.
        max_connections: Count,
        /// Memory for buffers, connections (warm ones too) and sessions together, such as "256MiB"; at least 4 MiB.
        /// Less than 128 MiB bounds the kernel's buffers of sockets as well. Default: half of
        /// the smallest limit of the process's control groups, or of the machine's memory.
        memory: Bytes,
        /// Pooled connections, over all upstreams; at most a quarter of the limit of open files. Default: 256, or an
        /// eighth of that limit if it is less.
        max_warm: Count,
    }
}

section! {
    /// Name resolution.
    struct Dns runs as #[derive(Eq)] DnsSettings {
        /// Name servers, with a port if it is not 53; empty: those of the system.
        servers: List<DnsServer> = [],
        /// Shortest time that an answer is kept, even if its time to live is shorter.
        // Answers with a time to live of zero are not asked for again by each of many connections at once.
        min_ttl: Duration = "1s",
        /// Longest time that an answer is kept.
        // A moved server is found after five minutes, whatever its zone says.
        max_ttl: Duration = "5m",
    }
}

section! {
    /// An admin address: metrics, probes, status, reload, drain.
    #[schemars(extend("required" = ["listen"]))]
    struct Admin {
        /// An address and port, or "unix:/path". Other addresses than loopback need `allow`.
        listen: Listen,
        /// Networks whose clients are allowed; required for addresses other than loopback. Default: all clients that
        /// reach the loopback address.
        allow: List<IpNet>,
        /// Users of this machine that are allowed, by name or id; Unix sockets only. Default: all users that the mode
        /// of the socket lets in.
        allow_users: List<User>,
        /// Mode of the Unix socket, in octal. Default: "0600".
        mode: Mode,
        /// What its clients may do: "read", metrics, probes and status; "control", also the configuration, reload, drain
        /// and quit. Default: "control".
        role: AdminRole,
        /// File whose content clients have to show as bearer token; probes that are answered with one word need none. It is read
        /// again at each reload. Default: no token.
        token_file: Location,
    }
}

section! {
    /// What starts a reload besides SIGHUP and `POST /reload`.
    struct Reload runs as #[derive(Eq)] ReloadSettings {
        /// Watch this file and every file it names.
        watch: bool = true,
    }
}

section! {
    /// A client certificate: the chain and its private key.
    #[schemars(extend("required" = ["certificate"]))]
    struct Identity {
        /// File with the certificate chain as PEM, the leaf first; or a PKCS#12 file.
        certificate: Location,
        /// File with the private key as PEM: PKCS#8 (plain or encrypted), PKCS#1 or SEC1.
        /// Default: the key is in the file of the certificate.
        private_key: Location,
        /// File whose first line is the password of the key or of the PKCS#12 file. Default: no password.
        password_file: Location,
        /// Accept a key file that other users may read. Default: false.
        allow_loose_key_permissions: bool,
    }
}

section! {
    /// What makes a server trusted: roots, one exact certificate, or pins; names; revocation lists.
    struct Trust {
        /// PEM files with root certificates, and folders of such files.
        roots: List<Location>,
        /// Trust the system's roots. Default: true if neither `roots` nor `certificate` nor `pins_only` is set.
        system_roots: bool,
        /// Root certificates that are to replace `roots` later, files and folders: metrics count whether servers would
        /// be trusted by them alone; nothing else changes. Default: none.
        candidate_roots: List<Location>,
        /// Trust exactly one certificate, whoever issued it: its file, or "sha256:" and its fingerprint.
        /// Name and dates are still checked. In place of roots.
        certificate: CertificateText,
        /// Public keys, "sha256/" and the base64 of the SHA-256 of a SubjectPublicKeyInfo: one must be in the
        /// verified chain. Default: no pins.
        pins: List<Pin>,
        /// The pinned key of the server's certificate is enough: no chain is built. Name and dates are still
        /// checked. Default: false.
        pins_only: bool,
        /// Names of which the certificate must carry one, "dns:", "ip:" or "uri:" before each; "cn:" or "ou:" for a name
        /// of its subject.
        /// Default: the server name; none beside `certificate` and `pins_only`.
        names: List<ExpectedName>,
        /// Files with revocation lists, PEM or DER. Default: none.
        crls: List<Location>,
    }
}

section! {
    /// A destination.
    #[schemars(extend("required" = ["servers"]))]
    struct Upstream {
        /// Servers with their ports, or names of services in DNS without one. At least one.
        servers: List<Listed>,
        /// Which address of the servers gets the next stream: "least_connections", the one with fewer streams of two
        /// drawn at random; "round_robin", each in turn; "priority", the first of the list that is available.
        /// Default: "least_connections".
        balance: Strategy,
        /// When a failing address is ejected: it gets no streams for a while.
        ejection: Ejection,
        /// Active health checks, in addition to what live traffic shows. Default: none.
        active_check: ActiveCheck,
        /// TLS settings.
        tls: Tls,
        /// STARTTLS-style protocol spoken before TLS, such as "postgres". Default: none.
        upgrade: Upgrade,
        /// What a client reads when its stream cannot be served: an error of this protocol, or "none", a reset.
        /// Default: that of `upgrade`, or "none".
        answer: AnswerWord,
        /// Pool of finished handshakes, kept ready for new clients. Default: none.
        pool: Pool,
        /// Options of connections to its servers.
        tcp: Tcp,
    } runs as #[derive(Eq)] UpstreamSettings {
        /// Close the streams to an address that DNS no longer returns.
        close_on_removal: bool = false,
        /// Pass the client's own TLS through untouched; the client has to begin with a ClientHello. Excludes `tls`,
        /// `upgrade`, `answer`, `pool` and `eof`.
        passthrough: bool = false,
        /// One deadline for name resolution, connect, upgrade and handshake, over all servers that are tried.
        // Time for one slow server and one quick one; most clients wait longer.
        originate_timeout: Duration = "10s",
        /// Close a stream after this long without traffic in either direction; or "never".
        // Longer than the silence of common connection pools, short enough that forgotten streams end.
        idle_timeout: Limit = "1h",
        /// Close a stream at this age; or "never".
        max_lifetime: Limit = "never",
        /// Close a stream of which one direction has ended after this long without traffic in the other. An absent key means
        /// the idle timeout if that is shorter.
        // What a peer may take to finish after the other side has closed; ghostunnel and stunnel wait as long.
        half_closed_timeout: Duration = "60s",
        /// What a FIN of the server without close_notify means while the client has not ended: "strict", a truncation,
        /// the client gets a reset; "lenient", a clean end.
        eof: Eof = "strict",
    }
}

section! {
    /// Options of TCP connections. Options that the kernel lacks are left out with a warning.
    struct Tcp runs as #[derive(Eq)] TcpSettings {
        /// Probe the peer after this long a silence, nine times at a quarter of it; or "never". 1 s to 9 h.
        // Well below the idle time-outs of common firewalls (350 s at the shortest that is documented for cloud load
        // balancers).
        keepalive: Limit = "60s",
        /// Close a connection when bytes or probes stay unacknowledged for this long; or "never": when the kernel gives
        /// up, after some 15 minutes.
        user_timeout: Limit = "never",
        /// TCP Fast Open: data in the first packet, where client and server have met before.
        fast_open: bool = false,
        /// Multipath TCP, where the peer speaks it too.
        multipath: bool = false,
        /// Congestion control by its name in the kernel. Default: that of the system.
        congestion: Congestion,
    }
}

section! {
    /// Finished handshakes that nobody has used yet, kept ready for the next clients.
    struct Pool runs as #[derive(Eq)] PoolSettings {
        /// Connections to keep ready even without traffic.
        min_idle: Amount = 0,
        /// Most connections to keep ready; traffic decides how many between `min_idle` and this. An absent key means
        /// `min_idle` if that is more.
        // A handful serves a hundred new connections a second where an origination takes 30 ms.
        max_idle: Count = 8,
        /// Replace a connection that was not used for this long. With an `upgrade`, an absent key means "10s", or "5s" for SMTP,
        /// LMTP and NNTP.
        // Shorter than the idle limits of common servers and load balancers, which begin at 60 s.
        max_idle_age: Duration = "30s",
    }
}

section! {
    /// TLS settings of an upstream.
    struct Tls {
        /// Name of the identity that is presented. Default: no client certificate.
        identity: Reference,
        /// Name of the trust by which the server is verified. Default: the system's roots.
        trust: Reference,
        /// The name to verify and to send as SNI, a host name or an IP address. Default: the host of each server.
        server_name: ServedName,
        /// Verification of the server: "full", a server that fails it is refused; "chain", the same without the server's
        /// name, which only `names` of the trust can demand; "report", it is used and the failure is logged; "none", nothing
        /// is verified. The last three need `insecure_reason`. Default: "full".
        verify: VerifyWord,
        /// Why `verify` is not "full".
        insecure_reason: Reason,
    } runs as #[derive(Eq)] TlsSettings {
        /// Send the server name in the ClientHello; an IP address is never sent.
        sni: bool = true,
        /// The lowest version of TLS: "1.2" or "1.3".
        min_version: TlsVersion = "1.2",
        /// The highest version of TLS: "1.2" or "1.3".
        max_version: TlsVersion = "1.3",
        /// Protocols for ALPN, in order of preference; the server has to choose one. Empty: no ALPN.
        alpn: List<Alpn> = [],
        /// Groups for the key exchange, in order of preference; empty: x25519mlkem768, x25519, secp256r1, secp384r1.
        key_exchange: List<KeyExchange> = [],
        /// Group whose key share the ClientHello carries: "hybrid", the post-quantum group of `key_exchange` (the
        /// ClientHello takes two packets); "classic", the first other group (one packet); "auto", the first of
        /// `key_exchange`, or "classic" for an address that did not answer it. All groups are offered.
        key_exchange_share: KeyShare = "auto",
        /// Resume TLS sessions. Sessions never cross an identity, trust or server name.
        resumption: bool = true,
        /// End a stream when a reload brings a trust under which its server is revoked or no longer believed: a revocation
        /// list that names it, a root or pin that was removed. Without resumption.
        close_on_revocation: bool = false,
    }
}

section! {
    /// An address on which connections are accepted, and the upstream that they go to.
    #[schemars(extend("required" = ["listen"], "anyOf" = [{"required": ["upstream"]}, {"required": ["routes"]}]))]
    struct Listener {
        /// Its name in logs and metrics. Default: its address.
        name: Name,
        /// An address and port, or "unix:/path". Other addresses than loopback need `allow`.
        listen: Listen,
        /// Mode of the Unix socket, in octal. Default: "0600".
        mode: Mode,
        /// Name of the upstream that connections go to; with `routes`, connections that no route matches. Required without
        /// `routes`. Default with `routes`: unmatched connections are refused.
        upstream: Reference,
        /// Routes by the server name or ALPN of the client's ClientHello, to upstreams with `passthrough`.
        /// Default: all go to `upstream`.
        routes: List<Route>,
        /// Networks whose clients are allowed; required for addresses other than loopback. Default: all clients that
        /// reach the loopback address.
        allow: List<IpNet>,
        /// Users of this machine that are allowed, by name or id; Unix sockets only. Default: all users that the mode
        /// of the socket lets in.
        allow_users: List<User>,
        /// Concurrent connections on this listener. Default: no bound of its own.
        max_connections: Count,
        /// Options of its connections.
        tcp: Tcp,
    }
}

section! {
    /// A route. Exact names match before wildcards, longer wildcards before shorter ones.
    #[schemars(extend("required" = ["server_names", "upstream"]))]
    struct Route {
        /// Server names (SNI) that match; "*.example.com" stands for all names below `example.com`.
        /// At least one.
        server_names: List<NamePattern>,
        /// ALPN protocols of which the client has to offer one; matches before a route of the same name without. Default:
        /// any.
        alpn: List<Alpn>,
        /// Name of the upstream, one with `passthrough`.
        upstream: Reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each default is read at its first use, and has to be of its key's type.
    #[test]
    fn every_declared_default_can_be_read() {
        let documents = [
            LogSettings::default().document(),
            RuntimeSettings::default().document(),
            LimitSettings::default().document(),
            DnsSettings::default().document(),
            ReloadSettings::default().document(),
            UpstreamSettings::default().document(),
            TlsSettings::default().document(),
            TcpSettings::default().document(),
            PoolSettings::default().document(),
            EjectionSettings::default().document(),
            CheckSettings::default().document(),
        ];
        assert!(documents.iter().all(|document| !document.is_empty()));
    }
}
