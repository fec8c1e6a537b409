//! What a `proxy_pass` points at.

use crate::config::problems::quote;
use crate::tools::import::facts;
use crate::tools::import::findings::{FORWARDS_ANYWHERE, SERVICE_LOST, VARIABLE};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::{PassTarget, split};
use crate::tools::import::nginx::scope::Scope;
use crate::tools::import::nginx::variables::{Choice, HELLO_NAME, Value};

pub(super) enum Destination<'a> {
    One(PassTarget<'a>),
    ByName(Choice),
}

/// The parts of a URL in `http`: scheme, authority, path (empty if there is none).
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
}

impl<'a> Importer<'_> {
    /// `None` if the destination depends on the connection, which is a finding.
    pub(super) fn destination(
        &mut self,
        scope: &Scope<'a>,
        pass: &'a Directive,
        blocks: &[&'a Directive],
    ) -> Option<Destination<'a>> {
        let typed = pass.argument(0);
        match self.resolve(scope, typed) {
            Value::Text(text) => self.target(pass, &text, blocks, None, typed.contains('$')).map(Destination::One),
            Value::ByName(choice) => Some(Destination::ByName(choice)),
            Value::Unknown(variable) => {
                self.varies(pass, &variable);
                None
            }
        }
    }

    pub(super) fn url(&mut self, scope: &Scope<'a>, pass: &'a Directive) -> Option<Url> {
        let typed = pass.argument(0);
        // Variables of the path are nobody's business here; those of the host are.
        let cut = PATH_VARIABLES.iter().filter_map(|name| typed.find(name)).min();
        let (before, after) = typed.split_at(cut.unwrap_or(typed.len()));
        let text = match self.resolve(scope, before) {
            Value::Text(text) => text + after,
            Value::ByName(_) => return None,
            Value::Unknown(variable) => {
                self.varies(pass, &variable);
                return None;
            }
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            let title = format!("this server is lost: {} is not a URL", quote(&text));
            self.find(SERVICE_LOST, pass, title, "not a URL", "write `https://` and the server");
            return None;
        };
        let end = rest.find(['/', '?', '$']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Some(Url { scheme: scheme.to_ascii_lowercase(), authority: authority.to_owned(), path: path.to_owned() })
    }

    fn varies(&mut self, pass: &Directive, variable: &str) {
        if ANYWHERE.contains(&variable) {
            let title = format!("`${variable}` comes from the client: it is taken wherever it wants to go");
            let repair = "not carried over; write an upstream for each server that clients have to reach";
            self.find(FORWARDS_ANYWHERE, pass, title, "the client decides", repair);
        } else {
            let title = format!("where this leads depends on `${variable}`, which only nginx knows");
            let repair = "not carried over; write an upstream for each of its values, and a listener for each";
            self.find(VARIABLE, pass, title, "a variable", repair);
        }
    }

    /// An upstream block of this name, or the server itself. `port`: the default.
    pub(super) fn target(
        &mut self,
        pass: &'a Directive,
        text: &str,
        blocks: &[&'a Directive],
        port: Option<u16>,
        late: bool,
    ) -> Option<PassTarget<'a>> {
        let address = split(text);
        let host = address.as_ref().map_or(text, |(host, _)| host.as_str());
        if let Some(block) = blocks.iter().find(|block| block.argument(0).eq_ignore_ascii_case(host)) {
            return Some(PassTarget::block(block, port.is_some()));
        }
        match address.and_then(|(host, said)| Some((host, said.or(port)?))) {
            Some((host, port)) if facts::is_name(&host) => Some(PassTarget::One { host, port, late }),
            _ => {
                let title = format!("this server is lost: {} is not a host with a port", quote(text));
                let repair = "egret speaks TLS over TCP: write the host and the port of a server";
                self.find(SERVICE_LOST, pass, title, "not a host with a port", repair);
                None
            }
        }
    }
}

/// Variables that can begin the path of a URL.
const PATH_VARIABLES: [&str; 8] =
    ["$request_uri", "${request_uri}", "$uri", "$is_args", "$args", "$document_uri", "$1", "$request_filename"];
/// Variables with a value that the client chooses.
const ANYWHERE: [&str; 4] = [HELLO_NAME, "host", "http_host", "ssl_server_name"];
