//! Why options of stunnel are not carried over.

/// The reason why an option of this name (in lower case) is not carried.
pub(super) fn why_not(name: &str) -> Option<&'static str> {
    let group = GROUPS.iter().find(|(names, _)| names.split_whitespace().any(|known| known == name));
    group.map(|(_, why)| *why)
}

const GROUPS: &[(&str, &str)] = &[
    ("setuid setgid chroot", "the service manager sets the user (systemd: `User=`)"),
    ("pid foreground service", "egret is one process in the foreground; its supervisor knows it"),
    ("debug output log syslog logid", "egret logs to its output: see `[log]`"),
    ("socket", "egret sets the options of its sockets itself"),
    (
        "fips compression rndfile rndbytes rndoverwrite egd libwrap taskbar iconactive iconerror iconidle",
        "egret has nothing of the kind",
    ),
    (
        "engine enginectrl enginedefault engineid enginenum provider providerparameter setproperty",
        "egret takes certificates and keys from files only",
    ),
    ("ciphers ciphersuites securitylevel", "egret speaks the AEAD suites of TLS 1.2 and 1.3, and none else"),
    (
        "options renegotiation config dh ticketkeysecret ticketmacsecret",
        "a setting of OpenSSL, which is not what egret speaks TLS with",
    ),
    ("session sessioncachesize sessioncachetimeout", "tickets are bounded in number and age by themselves"),
    ("timeoutbusy", "one deadline holds until TLS is spoken: `originate_timeout`"),
    ("timeoutconnect timeoutidle timeoutclose", "no bound, or no time: the default of egret holds"),
    (
        "ocsp ocspaia ocspflag ocspnonce ocsprequire",
        "egret asks no OCSP server; revocation lists are `crls` in a trust",
    ),
    ("pskidentity psksecrets", "egret knows certificates only"),
    ("exec execargs pty", "egret starts no programs for connections"),
    ("redirect requirecert", "only servers have use for it"),
    (
        "protocolhost protocolheader protocoldomain protocolusername protocolpassword protocolauthentication",
        "egret's request for TLS has no settings of its own",
    ),
    ("retry reset delay", "egret always resolves anew, and never asks a client again"),
    ("ident username", "use `allow` and `allow_users` to say which clients may connect"),
    ("include", "bring what stands in that folder into one file, and import again"),
    ("cafile capath crlfile crlpath", "nothing is verified by it"),
    (
        "accept connect client cert key failover protocol sni checkhost checkip checkemail verify verifychain verifypeer sslversion \
         sslversionmin sslversionmax curves sessionresume local transparent",
        "no service that was carried over uses it",
    ),
];
