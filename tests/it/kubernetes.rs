//! What `deploy/kubernetes` promises: manifests of one source that Kubernetes takes, and pods whose commands, files and
//! probes work.

mod manifests;
mod pod;
mod serving;
mod tools;
