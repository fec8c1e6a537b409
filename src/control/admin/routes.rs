//! The routes: which there are, and what each answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::exchanges::Progress;
use super::guard::Guard;
use super::{Control, Kept, Rights, Swapped, page};
use crate::config::values::AdminRole;
use crate::escape;
use crate::observe::logging::flood::{self, Event, Key};
use crate::observe::tasks;

pub(super) struct Routes {
    guard: Guard,
    rights: Rights,
    control: Arc<dyn Control>,
    reloads: Semaphore,
}

/// Reloads that may wait for each other: a quarter of the connections, so that a hanging disk never blocks the rest.
const MAX_RELOADS: usize = 8;

impl Routes {
    pub(super) fn new(guard: Guard, rights: Rights, control: Arc<dyn Control>) -> Self {
        Self { guard, rights, control, reloads: Semaphore::new(MAX_RELOADS) }
    }
}

impl Routes {
    fn check(&self, route: Option<Route>, request: &Parts) -> Result<(), (&'static str, Refusal)> {
        self.guard.check(request).map_err(|why| (why, Refusal::Guarded(why)))?;
        if !self.is_authorized(&request.headers) {
            return Err(("no token, or a wrong one", Refusal::Unauthorized));
        }
        if self.rights.role == AdminRole::Read && route.is_some_and(Route::controls) {
            let why = "this admin address has the role `read`";
            return Err((why, Refusal::Guarded(why)));
        }
        Ok(())
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(file) = &self.rights.token_file else { return true };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        shown.is_some_and(|shown| self.control.accepts(file, shown))
    }
}

/// The token of `Bearer TOKEN` (RFC 6750, section 2.1); the scheme is compared without case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Health,
    Live,
    Started,
    Ready,
    Status,
    Config,
    Outline,
    Reload,
    Drain,
    Quit,
}

impl Route {
    fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/livez" => Self::Live,
            "/startup" => Self::Started,
            "/readyz" => Self::Ready,
            "/status" => Self::Status,
            "/config" => Self::Config,
            "/outline" => Self::Outline,
            "/reload" => Self::Reload,
            "/drain" => Self::Drain,
            "/quit" => Self::Quit,
            _ => return None,
        })
    }

    /// Whether it shows the configuration, or changes what runs.
    fn controls(self) -> bool {
        matches!(self, Self::Config | Self::Outline | Self::Reload | Self::Drain | Self::Quit)
    }

    /// The methods, as the `Allow` header lists them (RFC 9110, section 10.2.1).
    fn allow(self) -> &'static str {
        match self {
            Self::Reload | Self::Drain | Self::Quit => "POST",
            _ => "GET, HEAD",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

const ROUTES: &str = "GET /metrics\nGET /healthz\nGET /livez\nGET /startup\nGET /readyz\nGET /readyz?upstreams=NAME,...\n\
    GET /status\nGET /config\nGET /outline\nPOST /reload\nPOST /drain\nPOST /quit\n";

/// No route reads a body; a body is read up to this size, so that its client gets an answer and not a reset.
const MAX_BODY: usize = 16 << 10;
/// The same as for the headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn answer(
    routes: &Routes,
    request: Request<Incoming>,
    progress: &Progress,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let answer = match choose(routes, &parts) {
        Err(refusal) => refusal.answer(),
        Ok(route) => match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(_)) => {
                progress.working();
                tasks::caught(act(route, routes, &parts)).await.unwrap_or_else(|_| failed())
            }
            Ok(Err(_)) => text(StatusCode::PAYLOAD_TOO_LARGE, "no body is needed"),
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
        },
    };
    progress.answering();
    Ok(answer)
}

/// The answer of a route that panicked; the log has the place.
fn failed() -> Response<Full<Bytes>> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "a fault of egret, see its log")
}

enum Refusal {
    Guarded(&'static str),
    /// No token, or a wrong one.
    Unauthorized,
    NoRoute,
    Method(Route),
}

impl Refusal {
    fn answer(self) -> Response<Full<Bytes>> {
        match self {
            Self::Guarded(why) => text(StatusCode::FORBIDDEN, why),
            // RFC 6750, section 3.
            Self::Unauthorized => {
                with(text(StatusCode::UNAUTHORIZED, "a bearer token is needed"), header::WWW_AUTHENTICATE, "Bearer")
            }
            Self::NoRoute => text(StatusCode::NOT_FOUND, ROUTES),
            Self::Method(route) => {
                with(text(StatusCode::METHOD_NOT_ALLOWED, route.allow()), header::ALLOW, route.allow())
            }
        }
    }
}

fn choose(routes: &Routes, request: &Parts) -> Result<Route, Refusal> {
    let route = Route::find(request.uri.path());
    if !is_probe(route, request) {
        let refused = |(why, refusal)| {
            if flood::is_first(Key::new(Event::AdminRequestRefused, why)) {
                tracing::warn!(path = request.uri.path(), why, "admin request refused");
            }
            refusal
        };
        routes.check(route, request).map_err(refused)?;
    }
    let route = route.ok_or(Refusal::NoRoute)?;
    if route.allows(&request.method) { Ok(route) } else { Err(Refusal::Method(route)) }
}

/// Probes ask under any name and learn one word. A question about upstreams is answered with more, and starts
/// originations.
fn is_probe(route: Option<Route>, request: &Parts) -> bool {
    matches!(route, Some(Route::Health | Route::Live | Route::Started | Route::Ready)) && request.uri.query().is_none()
}

async fn act(route: Route, routes: &Routes, request: &Parts) -> Response<Full<Bytes>> {
    let control = &routes.control;
    match route {
        Route::Metrics => with(text(StatusCode::OK, control.metrics()), header::CONTENT_TYPE, PROMETHEUS),
        Route::Health => text(StatusCode::OK, "ok"),
        Route::Live => listed("live", &control.stuck()),
        Route::Started => probed(control.has_started(), "started"),
        Route::Ready => match upstreams(request.uri.query()) {
            Ok(None) => probed(control.ready(), "ready"),
            Ok(Some(names)) => listed("ready", &control.lacks(&names).await),
            Err(why) => text(StatusCode::BAD_REQUEST, why),
        },
        Route::Status => status(&control.status(), &request.headers),
        Route::Config => json(&control.config()),
        Route::Outline => json(&control.outline()),
        Route::Reload => reload(routes).await,
        Route::Drain => {
            control.drain();
            text(StatusCode::ACCEPTED, "draining")
        }
        Route::Quit => {
            control.drain();
            text(StatusCode::ACCEPTED, "quitting after the drain")
        }
    }
}

fn probed(is_so: bool, word: &str) -> Response<Full<Bytes>> {
    match is_so {
        true => text(StatusCode::OK, word),
        false => text(StatusCode::SERVICE_UNAVAILABLE, format!("not {word}")),
    }
}

/// What is against it, which may hold text of servers; without anything the word.
fn listed(word: &str, against: &[String]) -> Response<Full<Bytes>> {
    match against.is_empty() {
        true => text(StatusCode::OK, word),
        false => text(StatusCode::SERVICE_UNAVAILABLE, escape::escaped_lines(&against.join("\n"))),
    }
}

/// Names in one question, at most: more than a probe can mean.
const MAX_NAMES: usize = 64;

/// The names of `upstreams=a,b`; an empty list stands for all. `None`: it does not ask for upstreams. Names need no
/// percent-encoding: they are letters, digits and `._-`.
fn upstreams(query: Option<&str>) -> Result<Option<Vec<&str>>, &'static str> {
    let Some(query) = query else { return Ok(None) };
    let names = match query.strip_prefix("upstreams") {
        Some("") => "",
        Some(rest) if rest.starts_with('=') => &rest[1..],
        _ => return Err("the question is `upstreams=NAME,...`"),
    };
    let names: Vec<_> = names.split(',').filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_NAMES { Err("too many names; ask for all of them with `upstreams`") } else { Ok(Some(names)) }
}

async fn reload(routes: &Routes) -> Response<Full<Bytes>> {
    let Ok(_permit) = routes.reloads.try_acquire() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_RELOADS} reloads are waiting already"));
    };
    match routes.control.reload().await {
        Ok(swapped) => text(StatusCode::OK, generation(&swapped)),
        Err(Kept::Rejected(problems)) => text(StatusCode::UNPROCESSABLE_ENTITY, problems),
        Err(Kept::Draining) => text(StatusCode::CONFLICT, "draining"),
    }
}

/// The generation, and a line for each part whose files cannot be used.
fn generation(swapped: &Swapped) -> String {
    let lines = swapped.troubled.iter().map(|line| format!("\n{line}"));
    format!("generation {}", swapped.generation) + &lines.collect::<String>()
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    with(text(StatusCode::OK, format!("{value:#}\n")), header::CONTENT_TYPE, "application/json")
}

/// JSON, or a page for clients that accept HTML (a browser does, curl does not).
fn status(status: &serde_json::Value, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let accepts = headers.get_all(header::ACCEPT);
    let person = accepts.iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
    let response = match person {
        true => {
            let page =
                with(text(StatusCode::OK, page::render(status)), header::CONTENT_TYPE, "text/html; charset=utf-8");
            with(page, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
        }
        false => {
            with(text(StatusCode::OK, escape::json(format!("{status:#}"))), header::CONTENT_TYPE, "application/json")
        }
    };
    with(response, header::VARY, "Accept")
}

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page runs nothing and loads nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    let mut text = text.into();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let response = with(response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    let response = with(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    with(response, header::CACHE_CONTROL, "no-store")
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_upstreams_is_understood() {
        assert_eq!(upstreams(None), Ok(None));
        for (query, names) in
            [("upstreams", &[][..]), ("upstreams=", &[]), ("upstreams=a", &["a"]), ("upstreams=a,b,", &["a", "b"])]
        {
            assert_eq!(upstreams(Some(query)), Ok(Some(names.to_vec())), "{query}");
        }
        for wrong in ["", "upstream=a", "upstreamsa", &format!("upstreams={}", "a,".repeat(MAX_NAMES + 1))] {
            assert!(upstreams(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
