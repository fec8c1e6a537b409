//! A name server on loopback whose answers a test decides.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Answers over UDP until it is dropped.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// What becomes of queries for a name.
#[derive(Clone)]
pub(crate) enum Reply {
    /// These addresses, with a TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Hosts of a service: priority, weight, port, target. TTL one minute.
    Services(Vec<(u16, u16, u16, &'static str)>),
    /// An alias with a TTL, then the address of its target with another.
    Alias { alias_ttl: u32, target: IpAddr, target_ttl: u32 },
    /// NXDOMAIN, with the SOA of the zone (negative TTL one hour).
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// Nothing.
    Silence,
    /// Nothing to AAAA, this to A.
    SilenceForV6(Box<Self>),
    /// This, so much later.
    Late(Duration, Box<Self>),
}

#[derive(Default)]
struct State {
    zone: HashMap<String, Reply>,
    /// Query ids per name: a repetition over UDP has the id of the first.
    seen: HashMap<String, HashSet<(u16, RecordType)>>,
}

impl DnsServer {
    /// On a free port; knows no name yet.
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).await.expect("a port on loopback");
        let address = socket.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(serve(Arc::new(socket), Arc::clone(&state)));
        Self { address, state, task }
    }

    /// From now on queries for this name are answered so.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        self.state.lock().unwrap().zone.insert(name.to_owned(), reply);
    }

    /// Different queries for this name so far; one for each family is what a look-up takes.
    pub(crate) fn queries(&self, name: &str) -> usize {
        self.state.lock().unwrap().seen.get(name).map_or(0, HashSet::len)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 1500];
    loop {
        // An ICMP error of a client that has gone is no end.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        let name = query.queries[0].name().to_string().to_lowercase();
        let name = name.trim_end_matches('.').to_owned();
        let mut reply = {
            let mut state = state.lock().unwrap();
            let id = (query.metadata.id, query.queries[0].query_type());
            state.seen.entry(name.clone()).or_default().insert(id);
            state.zone.get(&name).cloned().unwrap_or(Reply::NoSuchName)
        };
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            while let Reply::Late(wait, then) = reply {
                tokio::time::sleep(wait).await;
                reply = *then;
            }
            if let Some(response) = respond(&query, &reply) {
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

fn respond(query: &Message, reply: &Reply) -> Option<Vec<u8>> {
    let question = query.queries[0].clone();
    let (name, family) = (question.name().clone(), question.query_type());
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = true;
    response.metadata.recursion_available = true;
    response.add_query(question);
    match reply {
        Reply::Silence => return None,
        Reply::SilenceForV6(_) if family == RecordType::AAAA => return None,
        Reply::SilenceForV6(then) | Reply::Late(_, then) => return respond(query, then),
        Reply::Failure => response.metadata.response_code = ResponseCode::ServFail,
        Reply::NoSuchName => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.add_authority(soa());
        }
        Reply::Addresses(addresses, ttl) => {
            let fitting = addresses.iter().map(|ip| RData::from(*ip)).filter(|data| data.record_type() == family);
            response.add_answers(fitting.map(|data| Record::from_rdata(name.clone(), *ttl, data)));
            if response.answers.is_empty() {
                response.add_authority(soa());
            }
        }
        Reply::Services(hosts) => {
            let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
                let target = Name::from_str(&format!("{target}.")).unwrap();
                Record::from_rdata(name.clone(), 60, RData::SRV(SRV::new(*priority, *weight, *port, target)))
            };
            response.add_answers(hosts.iter().map(record).filter(|_| family == RecordType::SRV));
        }
        Reply::Alias { alias_ttl, target, target_ttl } => {
            let canonical = Name::from_str("target.example.com.").unwrap();
            response.add_answer(Record::from_rdata(name, *alias_ttl, RData::CNAME(CNAME(canonical.clone()))));
            let data = RData::from(*target);
            if data.record_type() == family {
                response.add_answer(Record::from_rdata(canonical, *target_ttl, data));
            } else {
                response.add_authority(soa());
            }
        }
    }
    Some(response.to_vec().expect("a small message"))
}

fn soa() -> Record {
    let zone = Name::from_str("example.com.").unwrap();
    let data = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, 3600);
    Record::from_rdata(zone, 3600, RData::SOA(data))
}
