//! Destinations: servers, TLS, limits of their streams.

use rustls::pki_types::ServerName;

use crate::config::file::{self, File};
use crate::config::formats::{AnswerWord, Limit, VerifyWord};
use crate::config::resolve::tcp::tcp;
use crate::config::resolve::{Resolver, servers};
use crate::config::source::Span;
use crate::config::values::{
    Host, KeyExchange, KeyShare, Pool, Tls, TlsSettings, TlsVersion, Upstream, UpstreamSettings, Verify,
};
use crate::protocols::answers::AnswerFormat;

pub(super) fn upstream(section: &file::Upstream, file: &File, resolver: &mut Resolver<'_>) -> Option<Upstream> {
    let servers = servers::servers(section, resolver);
    refuse_zero(section, resolver);
    refuse_with_passthrough(section, resolver);
    let default = file::Tls::default();
    let tls = section.tls.value().unwrap_or(&default);
    refuse_sni_for_ip(tls, section, resolver);
    Some(Upstream {
        servers,
        balance: servers::balance(section),
        ejection: servers::ejection(section, resolver),
        active_check: servers::active_check(section, resolver),
        tls: self::tls(tls, file, resolver)?.speaking_before(section.upgrade.value().copied()),
        upgrade: section.upgrade.value().copied(),
        answer: answer(section),
        pool: section.pool.value().map(|pool| self::pool(pool, section, resolver)),
        tcp: tcp(&section.tcp.or_empty(), resolver),
        settings: settings(section, resolver),
    })
}

fn answer(section: &file::Upstream) -> Option<AnswerFormat> {
    match section.answer.value() {
        Some(AnswerWord(format)) => *format,
        None => section.upgrade.value().and_then(|protocol| protocol.answer),
    }
}

fn pool(typed: &file::Pool, section: &file::Upstream, resolver: &mut Resolver<'_>) -> Pool {
    let mut pool = typed.settings();
    if typed.max_idle.is_absent() {
        pool.max_idle = pool.max_idle.max(pool.min_idle);
    }
    if let Some(protocol) = section.upgrade.value() {
        pool.max_idle_age = typed.max_idle_age.or(protocol.max_idle_age);
    }
    let Pool { min_idle, max_idle, .. } = pool;
    if let Some(span) = typed.min_idle.span().filter(|_| min_idle > max_idle) {
        let title = format!("`min_idle` ({min_idle}) is more than `max_idle` ({max_idle})");
        resolver.report(span, title, "more than there may be", "make `max_idle` at least `min_idle`");
    }
    if let Some((span, _)) = typed.max_idle_age.located().filter(|(_, age)| age.is_zero()) {
        let repair = "write a longer duration, or remove `pool`";
        resolver.report(span, "no time at all: nothing would ever be ready", "zero", repair);
    }
    pool
}

/// Refuses keys about TLS and upgrade where the client speaks to the server itself.
fn refuse_with_passthrough(section: &file::Upstream, resolver: &mut Resolver<'_>) {
    if !section.passthrough.or(false) {
        return;
    }
    let contradictions = [
        ("tls", section.tls.span(), "the client verifies the server and presents its own certificate"),
        ("upgrade", section.upgrade.span(), "the client begins with its TLS, nothing is said before"),
        ("answer", section.answer.span(), "the client expects TLS, which egret does not speak with it"),
        ("pool", section.pool.span(), "there is no handshake that could be made before the client comes"),
        ("eof", section.eof.span(), "close_notify is inside the client's TLS, which tells a truncation itself"),
    ];
    for (key, span, why) in contradictions {
        if let Some(span) = span {
            let title = format!("`{key}` has no meaning with `passthrough`: {why}");
            let repair = format!("remove `{key}`; or remove `passthrough`, and egret speaks TLS in the client's place");
            resolver.report(span, title, "not with `passthrough`", repair);
        }
    }
}

fn refuse_zero(section: &file::Upstream, resolver: &mut Resolver<'_>) {
    let limit = |limit: &Limit| limit.0.is_some_and(|duration| duration.is_zero());
    let zero = [
        section.originate_timeout.located().filter(|(_, duration)| duration.is_zero()).map(|(span, _)| span),
        section.half_closed_timeout.located().filter(|(_, duration)| duration.is_zero()).map(|(span, _)| span),
        section.idle_timeout.located().filter(|(_, duration)| limit(duration)).map(|(span, _)| span),
        section.max_lifetime.located().filter(|(_, duration)| limit(duration)).map(|(span, _)| span),
    ];
    for span in zero.into_iter().flatten() {
        resolver.report(span, "no time at all: every stream would end at once", "zero", "write a longer duration");
    }
}

fn settings(section: &file::Upstream, resolver: &mut Resolver<'_>) -> UpstreamSettings {
    let mut settings = section.settings();
    let UpstreamSettings { idle_timeout: idle, max_lifetime: lifetime, half_closed_timeout: half_closed, .. } =
        settings;
    match (section.half_closed_timeout.span(), idle.filter(|idle| *idle < half_closed)) {
        (Some(span), Some(idle)) => {
            let title = format!("`half_closed_timeout` ({half_closed:?}) is longer than the idle timeout ({idle:?})");
            resolver.report(span, title, "would never be reached", "make it shorter, or `idle_timeout` longer");
        }
        (None, Some(idle)) => settings.half_closed_timeout = idle,
        (_, None) => {}
    }
    if let (Some(span), Some(idle), Some(lifetime)) = (section.idle_timeout.span(), idle, lifetime)
        && idle > lifetime
    {
        let title = format!("`idle_timeout` ({idle:?}) is longer than `max_lifetime` ({lifetime:?})");
        resolver.report(span, title, "would never be reached", "make it shorter, or leave it out");
    }
    settings
}

/// `sni = true` was typed, but there is no name to send.
fn refuse_sni_for_ip(tls: &file::Tls, section: &file::Upstream, resolver: &mut Resolver<'_>) {
    let Some((span, true)) = tls.sni.located().map(|(span, on)| (span, *on)) else { return };
    let nameless = match tls.server_name.value() {
        Some(name) => matches!(name.0, ServerName::IpAddress(_)),
        None if !tls.server_name.is_absent() => false,
        None => servers::addresses(section).iter().any(|server| matches!(server.host, Host::Ip(_))),
    };
    if nameless {
        let repair = "add the server's name: `server_name = \"db.example.com\"`; or remove `sni`";
        resolver.report(span, "an IP address is never sent as SNI (RFC 6066)", "no name to send", repair);
    }
}

fn tls(section: &file::Tls, file: &File, resolver: &mut Resolver<'_>) -> Option<Tls> {
    resolver.refuse_repeated(&section.alpn, "protocol");
    resolver.refuse_repeated(&section.key_exchange, "group");
    resolver.refuse_empty(&section.key_exchange, "key_exchange", "all groups are offered");
    let settings = section.settings();
    refuse_versions(section, &settings, resolver);
    let hybrid_only = settings.key_exchange.iter().all(|group| *group == KeyExchange::X25519Mlkem768);
    if let Some(span) = section.key_exchange.span().filter(|_| hybrid_only && !settings.key_exchange.is_empty())
        && settings.min_version == TlsVersion::V1_2
    {
        let repair = "add a group that TLS 1.2 has, such as \"x25519\", or write `min_version = \"1.3\"`";
        resolver.report(span, "TLS 1.2 has no group in common with this list", "exists in TLS 1.3 only", repair);
    }
    refuse_key_share(section, &settings, resolver);
    Some(Tls {
        identity: resolver.refer(&section.identity, &file.identities, "identity", "identities"),
        trust: resolver.refer(&section.trust, &file.trust, "trust", "trust"),
        server_name: section.server_name.value().map(|name| name.0.clone()),
        verify: verify(section, resolver)?,
        settings,
    })
}

/// The group that is asked for has to be on the list, which by default is all of them.
fn refuse_key_share(section: &file::Tls, settings: &TlsSettings, resolver: &mut Resolver<'_>) {
    let Some(span) = section.key_exchange_share.span() else { return };
    let share = settings.key_exchange_share;
    let groups = &settings.key_exchange;
    let hybrid = |group: &KeyExchange| *group == KeyExchange::X25519Mlkem768;
    let listed = match share {
        KeyShare::Auto => true,
        KeyShare::Hybrid => groups.is_empty() || groups.iter().any(hybrid),
        KeyShare::Classic => groups.is_empty() || !groups.iter().all(hybrid),
    };
    if share == KeyShare::Hybrid && settings.max_version == TlsVersion::V1_2 {
        let title = "`key_exchange_share = \"hybrid\"` needs TLS 1.3, which `max_version` excludes";
        resolver.report(span, title, "exists in TLS 1.3 only", "remove it, or write `max_version = \"1.3\"`");
    } else if !listed {
        let title = "`key_exchange` lists no group of the kind that `key_exchange_share` asks for";
        resolver.report(span, title, "not on the list", "add such a group to `key_exchange`, or write \"auto\"");
    }
}

fn refuse_versions(section: &file::Tls, settings: &TlsSettings, resolver: &mut Resolver<'_>) {
    if let Some(span) = section.min_version.span().filter(|_| settings.min_version > settings.max_version) {
        let repair = "make `max_version` at least `min_version`, or leave one of them out";
        resolver.report(span, "`min_version` is higher than `max_version`: no version is left", "higher", repair);
    }
}

fn verify(section: &file::Tls, resolver: &mut Resolver<'_>) -> Option<Verify> {
    let Some((span, word)) = section.verify.located().filter(|(_, word)| **word != VerifyWord::Full) else {
        refuse_needless_reason(section, resolver);
        return Some(Verify::Full);
    };
    if section.insecure_reason.is_absent() {
        refuse_unreasoned(span, *word, resolver);
    }
    let reason = section.insecure_reason.value()?.0.clone();
    Some(match word {
        VerifyWord::Full => Verify::Full,
        VerifyWord::Chain => Verify::Chain { reason },
        VerifyWord::Report => Verify::Report { reason },
        VerifyWord::None => Verify::None { reason },
    })
}

fn refuse_unreasoned(span: &Span, word: VerifyWord, resolver: &mut Resolver<'_>) {
    let (title, label) = match word {
        VerifyWord::None => ("`verify = \"none\"` lets anyone pose as the server", "not verified, no reason given"),
        VerifyWord::Chain => {
            ("`verify = \"chain\"` lets every server of the authority pose as this one", "no name, no reason given")
        }
        _ => ("`verify = \"report\"` serves servers that do not pass", "not enforced, no reason given"),
    };
    let repair = "remove it; or say why it is allowed: `insecure_reason = \"...\"`. A self-signed server needs neither: \
                  `trust` with `certificate = \"server.pem\"`";
    resolver.report(span, title, label, repair);
}

fn refuse_needless_reason(section: &file::Tls, resolver: &mut Resolver<'_>) {
    // With a `verify` that could not be read, the reason may well be needed.
    let verified = section.verify.is_absent() || section.verify.value().is_some();
    if let Some(span) = section.insecure_reason.span().filter(|_| verified) {
        let title = "`insecure_reason` is given, but nothing insecure is asked for";
        resolver.report(span, title, "no reason is needed", "remove it, or write the `verify` that it is meant for");
    }
}
