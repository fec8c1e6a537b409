//! An explanation for a person: what was tried, what the server showed, what is wrong, and the repair.

use std::fmt::{self, Display};

use crate::tools::explain::attempt::AttemptKind;
use crate::tools::explain::report::{AttemptReport, Certificate, Chain, Exchange, Report};

/// Control characters of the peer were removed when its text was read.
pub(crate) struct Text<'a>(pub(crate) &'a Report);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        head(report, f)?;
        attempts(&report.attempts, f)?;
        if let Some(hello) = &report.hello {
            writeln!(f, "\nThe ClientHello\n")?;
            hello.iter().try_for_each(|field| field_line(f, &field.name, &field.value))?;
        }
        if let Some(chain) = &report.chain {
            of_chain(chain, f)?;
        }
        if let Some(request) = &report.client_certificate {
            writeln!(
                f,
                "\nThe server asks for a client certificate ({})\n",
                if request.answered { "sent" } else { "not sent" }
            )?;
            if request.acceptable.is_empty() {
                writeln!(f, "  of whichever authority")?;
            }
            request.acceptable.iter().try_for_each(|name| writeln!(f, "  of {name}"))?;
        }
        if let Some(exchange) = &report.exchange {
            of_exchange(exchange, f)?;
        }
        conclusion(report, f)
    }
}

fn of_exchange(exchange: &Exchange, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\nThe answer to {}\n", exchange.sent)?;
    field_line(f, "answer", exchange.answer.as_deref().unwrap_or("none"))?;
    if let Some(answer) = &exchange.without_identity {
        field_line(f, "without certificate", answer)?;
    }
    writeln!(f, "  {}.", capital(&exchange.sentence))
}

fn head(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}\n", report.server)?;
    let sni = if report.sni { "sent as SNI" } else { "not sent as SNI" };
    field_line(f, "server name", &format!("{}, {sni}", report.server_name))?;
    let identity = report.identity.as_ref();
    let identity = identity
        .map_or_else(|| "none".into(), |own| format!("{} (by {}, to {})", own.subject, own.issuer, own.not_after));
    field_line(f, "identity", &identity)?;
    field_line(f, "trust", &report.trust)?;
    field_line(f, "addresses", &if report.addresses.is_empty() { "none".into() } else { report.addresses.join(", ") })?;
    field_line(f, "clock", &report.clock)
}

fn field_line(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "  {name:<24} {value}")
}

fn attempts(attempts: &[AttemptReport], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if attempts.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nWhat was tried, and what came back\n")?;
    let several = attempts.iter().any(|attempt| attempt.address != attempts[0].address);
    for attempt in attempts {
        let mut title = title(&attempt.attempt).to_owned();
        if several {
            title = format!("{title}, {}", attempt.address);
        }
        writeln!(f, "  {title:<28} {}", outcome(attempt))?;
    }
    Ok(())
}

fn title(word: &str) -> &str {
    let others = [
        AttemptKind::AsConfigured,
        AttemptKind::Resumed,
        AttemptKind::ForeignSession,
        AttemptKind::Question,
        AttemptKind::QuestionWithoutIdentity,
    ];
    let mut all = others.into_iter().chain(AttemptKind::DIFFERENCES);
    all.find(|kind| kind.word() == word).map_or(word, |kind| kind.title())
}

fn outcome(attempt: &AttemptReport) -> String {
    let mut parts = vec![attempt.result.clone()];
    if attempt.late {
        parts.push("after the handshake".into());
    }
    parts.extend([&attempt.version, &attempt.suite, &attempt.group, &attempt.alpn].into_iter().flatten().cloned());
    match (attempt.attempt.as_str(), attempt.resumption.as_deref()) {
        ("resumed", Some("resumed")) => parts.push("resumed".into()),
        ("resumed", Some(_)) => parts.push("not resumed".into()),
        ("foreign_session", Some("resumed")) => parts.push("RESUMED".into()),
        ("foreign_session", Some(_)) => parts.push("refused, as it must be".into()),
        _ => {}
    }
    parts.push(format!("{} ms", attempt.milliseconds));
    parts.join("  ")
}

fn of_chain(chain: &Chain, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\nThe chain that the server sends\n")?;
    for (number, certificate) in chain.certificates.iter().enumerate() {
        of_certificate(number + 1, certificate, f)?;
    }
    match (&chain.anchor, &chain.missing) {
        (Some(anchor), _) => field_line(f, "completed by", anchor)?,
        (None, Some(missing)) => field_line(f, "missing", &format!("{missing}: neither sent nor trusted"))?,
        (None, None) => {}
    }
    if chain.out_of_order {
        field_line(f, "order", "not the one in which they were issued")?;
    }
    field_line(f, "judged by the trust", &chain.by_trust)?;
    if let Some(verdict) = &chain.by_candidates {
        field_line(f, "by the candidate roots", verdict)?;
    }
    field_line(f, "by the system's roots", chain.by_system.as_deref().unwrap_or("the system has none"))?;
    field_line(f, "taken for itself", &chain.by_itself)
}

fn of_certificate(number: usize, certificate: &Certificate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "  {number}. {} ({})", certificate.subject, certificate.role.replace('_', " "))?;
    let by = if certificate.self_signed { "itself" } else { certificate.issuer.as_str() };
    field_line(f, "   issued by", by)?;
    if certificate.role == "leaf" {
        let names = if certificate.names.is_empty() { "none".into() } else { certificate.names.join(", ") };
        field_line(f, "   names", &names)?;
    }
    field_line(f, "   valid", &format!("{} to {}", certificate.not_before, certificate.not_after))?;
    field_line(f, "   key", &certificate.key)?;
    field_line(f, "   fingerprint", &certificate.sha256)
}

fn conclusion(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match report.causes.is_empty() {
        true => no_cause(report, f)?,
        false => writeln!(f, "\nWhat is wrong\n")?,
    }
    for cause in &report.causes {
        let class = if cause.cause == cause.reason { String::new() } else { format!(" ({})", cause.reason) };
        writeln!(f, "  {}{class}", cause.cause)?;
        writeln!(f, "  {}.", capital(&cause.sentence))?;
    }
    if !report.notes.is_empty() {
        writeln!(f, "\nWorth knowing\n")?;
        report.notes.iter().try_for_each(|note| writeln!(f, "  {}: {}.", note.note, note.sentence))?;
    }
    let repair = &report.repair;
    let (egret, nginx) = match report.causes.is_empty() {
        true => ("As configuration of egret", "The same for nginx, in `server { }` of stream"),
        false => (
            "The repair for egret",
            "The repair for nginx, in `server { }` of stream (http: without the first two lines)",
        ),
    };
    for (title, text) in [(egret, &repair.egret), (nginx, &repair.nginx)] {
        if let Some(text) = text {
            writeln!(f, "\n{title}\n")?;
            // Without indentation: the lines are there to be pasted.
            f.write_str(text)?;
        }
    }
    if !repair.advice.is_empty() {
        writeln!(f, "\nTo do\n")?;
        repair.advice.iter().try_for_each(|advice| writeln!(f, "  - {advice}"))?;
    }
    Ok(())
}

/// States only what is proven: a server may accept a handshake and refuse the certificate afterwards.
fn no_cause(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\nNo cause found\n")?;
    writeln!(f, "  The server's certificate was verified, and the server accepted the handshake.")?;
    let accepted = report.exchange.as_ref().and_then(|exchange| exchange.accepted);
    if report.client_certificate.is_none() || accepted.is_some() {
        return Ok(());
    }
    writeln!(
        f,
        "  Whether it accepts the client certificate, TLS does not show: some servers refuse it later, in the"
    )?;
    let hint = if report.exchange.is_none() { "; `--http-get PATH` asks it" } else { "" };
    writeln!(f, "  protocol above TLS (nginx answers HTTP 400{hint}).")
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
