//! What an explanation says, as plain data: the text for people and the JSON for programs are made of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All that `egret explain --json` prints. Fields are added, never renamed or removed, within one `version`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// 1.
    pub version: u32,
    /// One for each server of the upstream.
    pub reports: Vec<Report>,
}

/// One server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Host and port, as configured.
    pub server: String,
    /// The name of the upstream.
    pub upstream: String,
    /// What certificates are checked for, and SNI if it is a DNS name.
    pub server_name: String,
    /// The server name is sent.
    pub sni: bool,
    /// The client certificate that is presented.
    pub identity: Option<Identity>,
    /// Whom the configuration believes, in words.
    pub trust: String,
    /// This machine's clock (RFC 3339).
    pub clock: String,
    /// The addresses of the host, with their ports if it is a service; empty: it could not be looked up.
    pub addresses: Vec<String>,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
    /// What the server presented; null: nothing.
    pub chain: Option<Chain>,
    /// The server's request for a client certificate; null: it did not ask, or did not come so far.
    pub client_certificate: Option<Request>,
    /// What is wrong, the first thing first; empty: nothing.
    pub causes: Vec<Cause>,
    /// What is worth knowing, and no fault.
    pub notes: Vec<Note>,
    /// What mends it; without a cause, the configuration that works.
    pub repair: Repair,
    /// The ClientHello of the attempt as configured, field by field; only with `--show-hello`.
    pub hello: Option<Vec<Field>>,
}

/// A client certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// Its distinguished name.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// The end of its validity, or of that of its chain if that is sooner (RFC 3339).
    pub not_after: String,
    /// Of the DER encoding of the leaf, as `sha256:HEX`.
    pub sha256: String,
    /// The files that it was read from: certificate, key, password.
    pub files: Vec<String>,
}

/// One origination that was tried.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// How it differs: `as_configured`, `without_sni`, `with_sni`, `without_identity`, `tls12`, `tls13`, `classic`,
    /// `all_groups`, `without_alpn`, `without_upgrade`, `resumed`, `foreign_session`.
    pub attempt: String,
    /// Where.
    pub address: String,
    /// The server name stood in the ClientHello.
    pub sni: bool,
    /// `ok`, or a word of docs/failures.md.
    pub result: String,
    /// A sentence, if it is not `ok`.
    pub detail: Option<String>,
    /// It failed when the handshake was already over for the client.
    pub late: bool,
    /// The version of TLS.
    pub version: Option<String>,
    /// The cipher suite.
    pub suite: Option<String>,
    /// The group of the key exchange.
    pub group: Option<String>,
    /// The protocol chosen by ALPN.
    pub alpn: Option<String>,
    /// `resumed`, `refused`, `starved` (no session to offer) or `off`.
    pub resumption: Option<String>,
    /// The server's certificate, as `sha256:HEX`.
    pub certificate: Option<String>,
    /// From connect to the end of the handshake, or to the failure.
    pub milliseconds: u64,
}

/// The chain as the server sent it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Chain {
    /// In the order of sending.
    pub certificates: Vec<Certificate>,
    /// An issuer that is neither sent nor trusted.
    pub missing: Option<String>,
    /// The trusted root that completes the chain.
    pub anchor: Option<String>,
    /// The certificates do not stand in the order in which they were issued.
    pub out_of_order: bool,
    /// `ok`, or the word of what the configured trust has against it.
    pub by_trust: String,
    /// The same for the roots of the system; null: it has none.
    pub by_system: Option<String>,
    /// The same if the server's certificate is taken for itself: name, dates and key alone.
    pub by_itself: String,
    /// The same for the candidate roots alone, of a chain that the trust believes; null: there are none.
    #[serde(default)]
    pub by_candidates: Option<String>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// `leaf`, `intermediate`, `superfluous_root` or `stray`.
    pub role: String,
    /// Distinguished name.
    pub subject: String,
    /// Distinguished name.
    pub issuer: String,
    /// `dns:`, `ip:` and `uri:` names; at most 32.
    pub names: Vec<String>,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// Such as `RSA 2048`.
    pub key: String,
    /// Of the DER encoding, as `sha256:HEX`.
    pub sha256: String,
    /// Of the public key, as `sha256/BASE64`.
    pub pin: String,
    /// It vouches for itself.
    pub self_signed: bool,
    /// It says that it is an authority.
    pub authority: bool,
    /// Where its issuer's certificate can be had.
    pub issuer_url: Option<String>,
}

/// The server's request for a client certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Authorities that it accepts; empty: it does not say. At most 16.
    pub acceptable: Vec<String>,
    /// A certificate was sent in the attempt as configured.
    pub answered: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The finer word of docs/explain.md, or the same as `reason`.
    pub cause: String,
    /// The class that log and metrics have for it (docs/failures.md).
    pub reason: String,
    /// One sentence.
    pub sentence: String,
    /// Where it shows; null: before any connection.
    pub address: Option<String>,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// A word of docs/explain.md.
    pub note: String,
    /// One sentence.
    pub sentence: String,
}

/// What mends it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Repair {
    /// Tables for egret's configuration: they take the place of those of the same names.
    pub egret: Option<String>,
    /// Directives for `server { }` of nginx's stream module.
    pub nginx: Option<String>,
    /// What else is to be done, and by whom.
    pub advice: Vec<String>,
}

/// A field of the ClientHello.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// Its name in RFC 8446, or of the extension.
    pub name: String,
    /// Its value in words.
    pub value: String,
}

impl Explanation {
    /// Something is wrong with a server.
    pub fn has_causes(&self) -> bool {
        self.reports.iter().any(|report| !report.causes.is_empty())
    }
}
