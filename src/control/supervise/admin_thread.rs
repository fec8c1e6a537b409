//! The admin addresses have a thread and a runtime of its own: they answer when a worker is stuck, and say so. With the
//! workers they would be silent: the one that is stuck may be the one that waits for sockets.

use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::Error;
use super::status::StatusView;
use crate::config::values::{Admin, Config};
use crate::control::admin::{self, Rights};
use crate::drain::Watch;
use crate::net::{Options, Socket};
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use crate::pipeline::admit::Admission;

/// A runtime may wait for its threads when it is dropped, and panics if it is dropped inside another one: by an error of
/// the start. This one waits for nothing.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("taken by the drop only")
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Addresses that are bound and not served yet.
pub(super) struct AdminThread {
    runtime: OwnRuntime,
    addresses: Vec<Address>,
}

struct Address {
    socket: Arc<Socket>,
    admission: Admission,
    rights: Rights,
}

impl Address {
    fn bind(spec: &Admin) -> Result<Self, Error> {
        let Admin { listen, access, role, token_file } = spec;
        let admission = Admission::load(access).map_err(Error::Admin)?;
        let socket = Arc::new(Socket::take_or_bind("admin", listen, &Options::default()).map_err(Error::Bind)?);
        Ok(Self { socket, admission, rights: Rights { role: *role, token_file: token_file.clone() } })
    }
}

impl AdminThread {
    /// `None`: the configuration has no admin address.
    pub(super) fn bind(config: &Config) -> Result<Option<Self>, Error> {
        if config.admin.is_empty() {
            return Ok(None);
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::AdminThread)?;
        let runtime = OwnRuntime(Some(runtime));
        let addresses = {
            // A socket belongs to the runtime in which it is made.
            let _inside = runtime.get().enter();
            config.admin.iter().map(Address::bind).collect::<Result<_, _>>()?
        };
        Ok(Some(Self { runtime, addresses }))
    }

    /// Serves until `ends` says so. Holds it until the last answer is sent.
    pub(super) fn start(self, status: Arc<StatusView>, registry: &Registry, ends: Watch) -> Result<(), Error> {
        let Self { runtime, addresses } = self;
        for Address { socket, rights, .. } in &addresses {
            tracing::info!(address = socket.local_address(), role = rights.role.word(), "admin listening");
        }
        let registry = registry.clone();
        let serve = move || {
            let mut served = JoinSet::new();
            for address in addresses {
                served.spawn_on(
                    serve(address, Arc::clone(&status), registry.clone(), ends.clone()),
                    runtime.get().handle(),
                );
            }
            drop(ends);
            runtime.get().block_on(async { while served.join_next().await.is_some() {} });
        };
        let started = thread::Builder::new().name("admin".to_owned()).spawn(serve);
        started.map(drop).map_err(Error::AdminThread)
    }
}

async fn serve(address: Address, status: Arc<StatusView>, registry: Registry, ends: Watch) {
    let Address { socket, admission, rights } = address;
    let serve = || {
        admin::serve(Arc::clone(&socket), admission.clone(), rights.clone(), Arc::clone(&status) as _, ends.draining())
    };
    tasks::keep_running(Task::Admin, &registry, || ends.is_draining(), serve).await;
}
