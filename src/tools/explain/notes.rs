//! What is no fault, and would be one elsewhere or tomorrow: a pure function.

use crate::credentials::certificate::Date;
use crate::pipeline::originate::origin::resumption::Resumption;
use crate::tools::explain::attempt::AttemptKind;
use crate::tools::explain::cause::Evidence;
use crate::tools::explain::chain::Role;
use crate::tools::explain::probe::Observation;
use crate::tools::explain::report::Note;

/// Seconds before its expiry from which a certificate is a note: 30 days, as common alert rules have it.
const SOON: i64 = 30 * 86_400;

pub(super) fn notes(evidence: &Evidence<'_>) -> Vec<Note> {
    let Some(main) = evidence.main() else { return Vec::new() };
    let all = [
        address(evidence),
        server_name(evidence, main),
        optional_certificate(evidence, main),
        issuer(main),
        session(evidence),
        superfluous(evidence),
        order(evidence),
        expiry(evidence, main),
        direct_tls(evidence, main),
        off(evidence),
    ];
    all.into_iter().flatten().collect()
}

fn note(note: &str, sentence: String) -> Option<Note> {
    Some(Note { note: note.into(), sentence })
}

fn address(evidence: &Evidence<'_>) -> Option<Note> {
    let tried = || evidence.observations.iter().filter(|seen| seen.kind == AttemptKind::AsConfigured);
    let wrong: Vec<String> = tried().filter(|seen| seen.reason().is_some()).map(of_address).collect();
    let count = tried().count();
    if wrong.is_empty() || wrong.len() == count {
        return None;
    }
    let text = format!("of {count} addresses {} do not work as configured: {}", wrong.len(), wrong.join(", "));
    note("addresses_differ", text)
}

fn of_address(seen: &Observation) -> String {
    format!("{} ({})", seen.endpoint, seen.reason().unwrap_or("ok"))
}

fn server_name(evidence: &Evidence<'_>, main: &Observation) -> Option<Note> {
    let without = evidence.attempt(AttemptKind::WithoutSni).filter(|_| main.reason().is_none())?;
    let how = match (without.reason(), without.presented().first()) {
        (Some("certificate_name_mismatch"), _) => "shows a certificate of another name",
        (Some(reason), None) => return sni_note(&format!("refuses ({reason})")),
        (_, Some(leaf)) if main.presented().first() != Some(leaf) => "shows another certificate",
        _ => return None,
    };
    sni_note(how)
}

fn sni_note(how: &str) -> Option<Note> {
    let text = format!("without SNI the server {how}; egret sends it, nginx does only with `proxy_ssl_server_name on`");
    note("server_name_needed", text)
}

fn optional_certificate(evidence: &Evidence<'_>, main: &Observation) -> Option<Note> {
    let request = main.seen.request.as_ref().filter(|request| !request.answered)?;
    if main.failure.is_some() || evidence.spec.tls.identity.is_some() {
        return None;
    }
    let from = match request.acceptable.is_empty() {
        true => String::new(),
        false => format!(" of {}", request.acceptable.join("; ")),
    };
    note(
        "client_certificate_optional",
        format!("the server asks for a client certificate{from} and goes on without; what it serves may depend on it"),
    )
}

/// The server accepted although it names other authorities: some servers refuse such a certificate only later.
fn issuer(main: &Observation) -> Option<Note> {
    let request = main.seen.request.as_ref().filter(|request| request.answered && request.foreign_issuer)?;
    if main.failure.is_some() {
        return None;
    }
    let accepted: Vec<String> = request.acceptable.iter().map(|name| format!("\"{name}\"")).collect();
    note(
        "client_certificate_issuer_not_listed",
        format!(
            "the issuer of the client certificate is none of the authorities that the server names ({})",
            accepted.join(", ")
        ),
    )
}

fn session(evidence: &Evidence<'_>) -> Option<Note> {
    let taken = |kind| {
        evidence.attempt(kind).and_then(|seen| seen.agreed.as_ref()).map(|agreed| agreed.resumed)
            == Some(Resumption::Resumed)
    };
    if taken(AttemptKind::ForeignSession) {
        // rustls keeps the two apart. If it ever does not, the report must not say that all is well.
        return note("session_crossed", "a session of another identity was resumed: please report this".into());
    }
    if !taken(AttemptKind::Resumed) || evidence.request().is_none() || evidence.spec.tls.identity.is_none() {
        return None;
    }
    note(
        "session_carries_identity",
        "a resumed session keeps the client certificate it was made with; egret keeps one store for each identity, nginx shares them: `proxy_ssl_session_reuse off` there"
            .into(),
    )
}

fn superfluous(evidence: &Evidence<'_>) -> Option<Note> {
    let subjects = |role| {
        let links = evidence.chain.links.iter().filter(move |link| link.role == role);
        links.map(|link| format!("\"{}\"", link.facts.subject)).collect::<Vec<_>>()
    };
    let roots = subjects(Role::SuperfluousRoot);
    let strays = subjects(Role::Stray);
    match (roots.is_empty(), strays.is_empty()) {
        (true, true) => None,
        (_, false) => note("chain_strays", format!("the server sends what is not of its chain: {}", strays.join(", "))),
        (false, true) => {
            note("chain_superfluous_root", format!("the server sends its root {} for nothing", roots.join(", ")))
        }
    }
}

fn order(evidence: &Evidence<'_>) -> Option<Note> {
    let text = "the server's certificates do not stand in the order in which they were issued; old clients refuse that";
    if evidence.chain.out_of_order { note("chain_out_of_order", text.into()) } else { None }
}

fn expiry(evidence: &Evidence<'_>, main: &Observation) -> Option<Note> {
    if main.reason().is_some() {
        return None;
    }
    let soonest = evidence.chain.links.iter().filter(|link| matches!(link.role, Role::Leaf | Role::Intermediate));
    let link = soonest.min_by_key(|link| link.facts.not_after.0)?;
    let Date(end) = link.facts.not_after;
    if end - evidence.now.0 > SOON {
        return None;
    }
    let days = (end - evidence.now.0) / 86_400;
    note("expires_soon", format!("the certificate \"{}\" expires in {days} days", link.facts.subject))
}

/// One round trip less for each connection.
fn direct_tls(evidence: &Evidence<'_>, main: &Observation) -> Option<Note> {
    let agreed = evidence.attempt(AttemptKind::DirectTls)?.agreed.as_ref().filter(|_| main.failure.is_none())?;
    let direct = evidence.spec.upgrade?.direct()?;
    if agreed.alpn.as_deref() != direct.alpn.map(str::as_bytes) {
        return None;
    }
    let text = "the server takes TLS from the first byte too, which saves the round trip of the request for TLS";
    note("direct_tls_possible", format!("{text}: upgrade = \"{}\"", direct.word))
}

fn off(evidence: &Evidence<'_>) -> Option<Note> {
    use crate::config::values::Verify;
    match evidence.spec.tls.verify {
        Verify::Full => None,
        Verify::Chain { .. } => {
            let text =
                "the configuration verifies the server's chain and takes any name; this explanation wants the name";
            note("verification_off", text.into())
        }
        Verify::Report { .. } | Verify::None { .. } => note(
            "verification_off",
            "the configuration does not refuse a server that it cannot verify; this explanation judges as if it did"
                .into(),
        ),
    }
}
