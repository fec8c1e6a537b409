//! What was typed: a mirror of the file, key by key, each value understood on its own.
//!
//! The doc comment of a key is what editors show: they become descriptions in the JSON schema.
//! What keys mean together is decided in `config::resolve`.

mod servers;

use std::time::Duration;

use ipnet::IpNet;

pub use self::servers::{ActiveCheck, Ejection, Listed, ServerTable};
use crate::config::formats::{
    Alpn, Bytes, CertificateText, Congestion, DnsServer, Limit, Listen, Location, LogLevel, Mode, Pin, Reason,
    Reference, ServedName, VerifyWord,
};
use crate::config::read::{Amount, Count, Given, Named, Processor, section};
use crate::config::values::{
    Eof, ExpectedName, KernelTls, KeyExchange, KeyShare, LogFormat, Name, NamePattern, Strategy, TlsVersion, Upgrade,
    User,
};

/// Several values of one kind.
pub type List<T> = Vec<Given<T>>;

section! {
    /// The configuration of egret.
    ///
    /// Every string may hold `${NAME}`, which stands for the environment variable NAME; `$${` is a literal `${`.
    /// Relative paths start at the folder of the file.
    pub struct File {
        /// How long streams may finish after SIGTERM before they are reset. A duration: `ms`, `s`, `m`, `h`, `d`.
        /// Default: "30s".
        drain_timeout: Duration,
        /// How the log is written.
        log: Log,
        /// Threads.
        runtime: Runtime,
        /// Bounds of the whole process.
        limits: Limits,
        /// Name resolution.
        dns: Dns,
        /// Where the process is watched and steered: metrics, health, status, reload. Default: nowhere.
        admin: Admin,
        /// What starts a reload besides SIGHUP and `POST /reload`.
        reload: Reload,
        /// Who egret is: certificates with their private keys, each under a name.
        identities: Named<Identity>,
        /// Whom egret believes, each under a name.
        trust: Named<Trust>,
        /// Destinations, each under a name.
        upstreams: Named<Upstream>,
        /// Where connections are accepted, and where they go. At least one.
        listeners: List<Listener>,
    }
}

section! {
    /// How the log is written.
    pub struct Log {
        /// The shape of a line: "text" for people, "json" for programs. Default: "text".
        format: LogFormat,
        /// What is logged: off, error, warn, info, debug or trace, with exceptions for single modules
        /// after a comma. Default: "info".
        level: LogLevel,
    }
}

section! {
    /// Threads.
    pub struct Runtime {
        /// Worker threads, at most 1024. Default: one per processor.
        workers: Count,
        /// Processors on which all threads run, by their numbers. Default: those that the system gives.
        affinity: List<Processor>,
        /// Whether the kernel may make the records of TLS: "off", "auto" where it can do so without loss, or
        /// "prefer" wherever it can, though a change of keys may then end a stream. Default: "off".
        kernel_tls: KernelTls,
    }
}

section! {
    /// Bounds of the whole process.
    pub struct Limits {
        /// Connections at once, over all listeners. Default, and the most: what the limit of open files allows.
        max_connections: Count,
        /// Memory for buffers, connections and sessions together, such as "256MiB"; at least 4 MiB. Default: half of
        /// the smallest limit of the process's control groups, or of the machine's memory.
        memory: Bytes,
        /// Warm connections at once, over all pools; at most a quarter of the limit of open files. Default: 256, or an
        /// eighth of that limit if it is less.
        max_warm: Count,
    }
}

section! {
    /// Name resolution.
    pub struct Dns {
        /// Name servers, with a port if it is not 53. Default: those of the system.
        servers: List<DnsServer>,
        /// An answer is kept at least so long, however short its time to live. Default: "1s".
        min_ttl: Duration,
        /// An answer is kept at most so long. Default: "5m".
        max_ttl: Duration,
    }
}

section! {
    /// Where the process is watched and steered.
    #[schemars(extend("required" = ["listen"]))]
    pub struct Admin {
        /// An address and port, or "unix:/path". Other addresses than loopback need `allow`.
        listen: Listen,
        /// Networks that may come; needed for addresses other than loopback. Default: everyone who reaches
        /// the loopback address.
        allow: List<IpNet>,
        /// Users of this machine that may come, by name or id; Unix sockets only. Default: everyone whom
        /// the mode of the socket lets in.
        allow_users: List<User>,
        /// Mode of the Unix socket, in octal. Default: "0600".
        mode: Mode,
    }
}

section! {
    /// What starts a reload besides SIGHUP and `POST /reload`.
    pub struct Reload {
        /// Watch this file and every file it names. Default: true.
        watch: bool,
    }
}

section! {
    /// Who egret is: a certificate chain and its private key.
    #[schemars(extend("required" = ["certificate"]))]
    pub struct Identity {
        /// File with the certificate chain as PEM, the leaf first; or a PKCS#12 file.
        certificate: Location,
        /// File with the private key as PEM: PKCS#8 (plain or encrypted), PKCS#1 or SEC1.
        /// Default: the key is in the file of the certificate.
        private_key: Location,
        /// File whose first line is the password of the key or of the PKCS#12 file. Default: no password.
        password_file: Location,
        /// Take a key file that other users may read. Default: false.
        allow_loose_key_permissions: bool,
    }
}

section! {
    /// Whom egret believes.
    pub struct Trust {
        /// PEM files with root certificates, and folders of such files.
        roots: List<Location>,
        /// Believe the roots of the system. Default: true if neither `roots` nor `certificate` nor `pins_only` is set.
        system_roots: bool,
        /// Root certificates that are to replace `roots`, files and folders: whether servers would pass with them alone
        /// is counted, and changes nothing. Default: none.
        candidate_roots: List<Location>,
        /// Believe exactly one certificate, whatever it says of itself: its file, or "sha256:" and its fingerprint.
        /// Name and dates are still checked. In place of roots.
        certificate: CertificateText,
        /// Public keys, "sha256/" and the base64 of the SHA-256 of a SubjectPublicKeyInfo: one must be in the
        /// verified chain. Default: none is asked for.
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
    pub struct Upstream {
        /// Servers with their ports, or names of services in DNS without one. At least one.
        servers: List<Listed>,
        /// Which address of the servers gets a stream: "least_connections", of two drawn at random the one with
        /// fewer streams; "round_robin", in turns; "priority", the first of the list that is to be had.
        /// Default: "least_connections".
        balance: Strategy,
        /// When an address that fails gets no streams for a while.
        ejection: Ejection,
        /// Asking every address whether it is there, besides what streams tell. Default: streams only.
        active_check: ActiveCheck,
        /// End the streams to an address that DNS names no more. Default: false, they go on.
        close_on_removal: bool,
        /// How TLS is spoken.
        tls: Tls,
        /// The client speaks TLS with the server itself: its bytes go through untouched, and it has to begin
        /// with a ClientHello. Without `tls`, `upgrade`, `pool` and `eof`. Default: false.
        passthrough: bool,
        /// What is said in plaintext before TLS begins: "postgres". Default: nothing.
        upgrade: Upgrade,
        /// One deadline for name resolution, connect, upgrade and handshake, over all servers that are tried. Default: "10s".
        originate_timeout: Duration,
        /// Finished handshakes that are kept ready. Default: none.
        pool: Pool,
        /// No byte in either direction for so long ends a stream; or "never". Default: "1h".
        idle_timeout: Limit,
        /// A stream ends at this age; or "never". Default: "never".
        max_lifetime: Limit,
        /// With one direction ended, no byte in the other for so long ends the stream. Default: "60s", or the
        /// idle timeout if that is shorter.
        half_closed_timeout: Duration,
        /// What a FIN of the server without close_notify means while the client has not ended: "strict", a truncation,
        /// the client gets a reset; "lenient", a clean end. Default: "strict".
        eof: Eof,
        /// Options of connections to its servers.
        tcp: Tcp,
    }
}

section! {
    /// Options of TCP connections. What the kernel does not have is warned about and left out.
    pub struct Tcp {
        /// The peer is probed after so long a silence, nine times at a quarter of it; or "never". 1 s to 9 h.
        /// Default: "60s".
        keepalive: Limit,
        /// The connection is given up when bytes sent, or probes, go unacknowledged for so long; or "never": after
        /// as many tries as the kernel makes, some 15 minutes. Default: "never".
        user_timeout: Limit,
        /// TCP Fast Open: data in the first packet, where client and server have met before. Default: false.
        fast_open: bool,
        /// Multipath TCP, where the peer speaks it too. Default: false.
        multipath: bool,
        /// Congestion control by its name in the kernel. Default: that of the system.
        congestion: Congestion,
    }
}

section! {
    /// Finished handshakes that nobody has used yet, kept ready for the next clients.
    pub struct Pool {
        /// So many are kept ready without traffic too. Default: 0.
        min_idle: Amount,
        /// The most that are kept ready; between the two, traffic decides. Default: 8, or `min_idle` if that is more.
        max_idle: Count,
        /// One that nobody has used for so long is replaced. Default: "30s"; with an upgrade "10s".
        max_idle_age: Duration,
    }
}

section! {
    /// How TLS is spoken to an upstream.
    pub struct Tls {
        /// Name of the identity that is presented. Default: no client certificate.
        identity: Reference,
        /// Name of the trust that the server must meet. Default: the roots of the system.
        trust: Reference,
        /// The name to verify and to send as SNI, a host name or an IP address. Default: the host of each server.
        server_name: ServedName,
        /// Send the server name in the ClientHello; an IP address is never sent. Default: true.
        sni: bool,
        /// What becomes of a server that does not pass: "full", refused; "report", served and told;
        /// "none", not looked at. The last two need `insecure_reason`. Default: "full".
        verify: VerifyWord,
        /// Why `verify` is not "full".
        insecure_reason: Reason,
        /// The lowest version of TLS: "1.2" or "1.3". Default: "1.2".
        min_version: TlsVersion,
        /// The highest version of TLS: "1.2" or "1.3". Default: "1.3".
        max_version: TlsVersion,
        /// Protocols for ALPN, in order of preference; the server has to choose one. Default: no ALPN.
        alpn: List<Alpn>,
        /// Groups for the key exchange, in order of preference. Default: x25519mlkem768, x25519, secp256r1, secp384r1.
        key_exchange: List<KeyExchange>,
        /// The group whose key share the ClientHello carries: "hybrid", the post-quantum one of `key_exchange`, with which
        /// it takes two packets; "classic", the first other one, which fits one; "auto", the first of `key_exchange`, and
        /// "classic" for an address whose answer that costs. All groups stay on the list. Default: "auto".
        key_exchange_share: KeyShare,
        /// Continue sessions by tickets. Tickets never cross an identity or trust. Default: true.
        resumption: bool,
        /// End a stream when a reload brings a trust under which its server is revoked or no longer believed: a revocation
        /// list that names it, a root or pin that was removed. Without resumption. Default: false, streams go on.
        close_on_revocation: bool,
    }
}

section! {
    /// Where connections are accepted, and where they go.
    #[schemars(extend("required" = ["listen"], "anyOf" = [{"required": ["upstream"]}, {"required": ["routes"]}]))]
    pub struct Listener {
        /// Its name in logs and metrics. Default: its address.
        name: Name,
        /// An address and port, or "unix:/path". Other addresses than loopback need `allow`.
        listen: Listen,
        /// Mode of the Unix socket, in octal. Default: "0600".
        mode: Mode,
        /// Name of the upstream that connections go to; with `routes`, those that no route is for.
        /// Default with `routes`: those are refused. Needed without.
        upstream: Reference,
        /// Where connections go by what the client's ClientHello asks for, to upstreams with `passthrough`.
        /// Default: all go to `upstream`.
        routes: List<Route>,
        /// Networks that may come; needed for addresses other than loopback. Default: everyone who reaches
        /// the loopback address.
        allow: List<IpNet>,
        /// Users of this machine that may come, by name or id; Unix sockets only. Default: everyone whom
        /// the mode of the socket lets in.
        allow_users: List<User>,
        /// Connections at once on this listener. Default: no bound of its own.
        max_connections: Count,
        /// Options of its connections.
        tcp: Tcp,
    }
}

section! {
    /// A way to an upstream for some of the clients. An exact name goes before wildcards, and a longer
    /// wildcard before a shorter one.
    #[schemars(extend("required" = ["server_names", "upstream"]))]
    pub struct Route {
        /// Names that the client asks for by SNI; "*.example.com" stands for all names below `example.com`.
        /// At least one.
        server_names: List<NamePattern>,
        /// Protocols of which the client has to offer one by ALPN; goes before a route of the same name
        /// without. Default: whatever it offers.
        alpn: List<Alpn>,
        /// Name of the upstream, one with `passthrough`.
        upstream: Reference,
    }
}
