//! The admin endpoint has a thread and a runtime of its own: it answers when a worker is stuck, and says so. With the
//! workers it would be silent: the one that is stuck may be the one that waits for sockets.

use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::Error;
use super::status::StatusView;
use crate::config::values::{Admin, Config};
use crate::control::admin;
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

/// An address that is bound and not served yet.
pub(super) struct AdminThread {
    runtime: OwnRuntime,
    socket: Socket,
    admission: Admission,
}

impl AdminThread {
    /// `None`: the configuration has no admin address.
    pub(super) fn bind(config: &Config) -> Result<Option<Self>, Error> {
        let Some(Admin { listen, access }) = &config.admin else { return Ok(None) };
        let admission = Admission::load(access).map_err(Error::Admin)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::AdminThread)?;
        let runtime = OwnRuntime(Some(runtime));
        let socket = {
            // The socket belongs to the runtime in which it is made.
            let _inside = runtime.get().enter();
            Socket::bind(listen, &Options::default()).map_err(Error::Bind)?
        };
        Ok(Some(Self { runtime, socket, admission }))
    }

    /// Serves until `ends` says so. Holds it until the last answer is sent.
    pub(super) fn start(self, status: Arc<StatusView>, registry: &Registry, ends: Watch) -> Result<(), Error> {
        tracing::info!(address = self.socket.local_address(), "admin listening");
        let Self { runtime, socket, admission } = self;
        let registry = registry.clone();
        let socket = Arc::new(socket);
        let serve = move || {
            let serve =
                || admin::serve(Arc::clone(&socket), admission.clone(), Arc::clone(&status) as _, ends.draining());
            runtime.get().block_on(tasks::keep_running(Task::Admin, &registry, || ends.is_draining(), serve));
        };
        let started = thread::Builder::new().name("admin".to_owned()).spawn(serve);
        started.map(drop).map_err(Error::AdminThread)
    }
}
