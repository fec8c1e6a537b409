//! What is to be explained: an upstream with its files read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::values::{self, Config, Name, Server};
use crate::credentials::identity::{self, Identity};
use crate::credentials::trust::{self, Trust};
use crate::tools::explain::question::Question;
use crate::tools::explain::repair::Plan;

pub(crate) struct Target {
    pub(crate) plan: Plan,
    pub(crate) server: Server,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) system: Option<Arc<Trust>>,
    pub(crate) dns: values::Dns,
    /// Per attempt.
    pub(crate) timeout: Duration,
    pub(crate) show_hello: bool,
    pub(crate) question: Option<Question>,
}

/// Read once for all servers of an upstream.
pub(crate) struct Files {
    identity: Option<Arc<Identity>>,
    trust: Arc<Trust>,
    system: Option<Arc<Trust>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("identity {0}: {1}")]
    Identity(Name, #[source] identity::Error),
    #[error("trust {0}: {1}")]
    Trust(Name, #[source] trust::Error),
    #[error(
        "upstream {0} passes the client's own TLS through, and none of egret's is spoken: explain HOST:PORT, with the client's settings"
    )]
    PassesThrough(Name),
    #[error("there is no upstream {asked:?}; there are: {}", .known.join(", "))]
    NoSuchUpstream {
        /// Empty: none was named, and there are several.
        asked: String,
        known: Vec<String>,
    },
}

impl Plan {
    /// Without a name, the only upstream.
    ///
    /// # Errors
    ///
    /// There is none of that name, or more than one to choose from.
    pub(crate) fn of_config(config: &Config, upstream: Option<&str>) -> Result<Self, Error> {
        let known = || config.upstreams.keys().map(ToString::to_string).collect();
        let asked = upstream.unwrap_or_default();
        let found = match upstream {
            Some(name) => config.upstreams.get_key_value(&Name::new(name)),
            None => config.upstreams.iter().next().filter(|_| config.upstreams.len() == 1),
        };
        let (name, spec) = found.ok_or_else(|| Error::NoSuchUpstream { asked: asked.to_owned(), known: known() })?;
        if spec.passthrough {
            return Err(Error::PassesThrough(name.clone()));
        }
        let named = |name: &Option<Name>| name.clone();
        Ok(Self {
            name: name.clone(),
            upstream: spec.clone(),
            identity: named(&spec.tls.identity).map(|name| config.identities[&name].clone()),
            trust: named(&spec.tls.trust).map(|name| config.trusts[&name].clone()),
            is_part: true,
        })
    }
}

impl Files {
    /// Reads what a plan names. Blocks on the file system.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn load(plan: &Plan) -> Result<Self, Error> {
        let identity = match &plan.identity {
            Some(spec) => {
                let name = plan.upstream.tls.identity.clone().unwrap_or_else(|| plan.name.clone());
                let loaded = Identity::load(spec).map_err(|error| Error::Identity(name, error))?;
                Some(Arc::new(loaded))
            }
            None => None,
        };
        let system_name = Name::new("the system's roots");
        let system = Trust::load(&system_name, &values::Trust::default());
        let (trust, system) = match &plan.trust {
            Some(spec) => {
                let name = plan.upstream.tls.trust.clone().unwrap_or_else(|| plan.name.clone());
                let loaded = Trust::load(&name, spec).map_err(|error| Error::Trust(name, error))?;
                (Arc::new(loaded), system.ok().map(Arc::new))
            }
            None => {
                let system = Arc::new(system.map_err(|error| Error::Trust(system_name, error))?);
                (Arc::clone(&system), Some(system))
            }
        };
        Ok(Self { identity, trust, system })
    }

    pub(crate) fn target(&self, plan: &Plan, server: Server, dns: values::Dns, timeout: Duration) -> Target {
        Target {
            plan: plan.clone(),
            server,
            identity: self.identity.clone(),
            trust: Arc::clone(&self.trust),
            system: self.system.clone(),
            dns,
            timeout,
            show_hello: false,
            question: None,
        }
    }
}

impl Target {
    /// Verified, and sent as SNI if it is a DNS name.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.plan.server_name(&self.server)
    }

    /// The value of the Host header (RFC 9110 section 7.2): without the port of https.
    pub(crate) fn authority(&self, endpoint: SocketAddr) -> String {
        let host = match self.server_name() {
            ServerName::IpAddress(ip) => match IpAddr::from(ip) {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            },
            name => name.to_str().into_owned(),
        };
        if endpoint.port() == 443 { host } else { format!("{host}:{}", endpoint.port()) }
    }
}
