//! The metrics of a generation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Snapshot;
use crate::config::values::{self, Name};
use crate::credentials::certificate::Date;
use crate::credentials::inventory;
use crate::credentials::part::Part;
use crate::observe::metrics::{NOT_AFTER, NOT_BEFORE, RESUMPTION_RATIO, Registry};
use crate::pipeline::originate::Originator;
use crate::pipeline::originate::origin::Origin;

impl Snapshot {
    /// Sets the gauges of this generation; those of names that are gone become NaN, with which no comparison of an
    /// alert holds. Origins that it does not use drop their sessions. Call it once the generation runs, inside the
    /// runtime: upstreams start their background work.
    pub(crate) fn publish(&self, previous: Option<&Self>, registry: &Registry) {
        self.upstreams.values().for_each(Originator::start);
        let mine: HashSet<_> = self.origins().map(Arc::as_ptr).collect();
        let theirs = previous.iter().flat_map(|previous| previous.origins());
        theirs.filter(|origin| !mine.contains(&Arc::as_ptr(origin))).for_each(|origin| origin.retire());
        let mut gauges: HashMap<Published, f64> =
            previous.iter().flat_map(|previous| previous.gauges()).map(|(gauge, _)| (gauge, f64::NAN)).collect();
        let gone = previous.iter().flat_map(|previous| previous.upstreams.keys());
        let gone = gone.filter(|name| !self.upstreams.contains_key(*name));
        for name in gone {
            gauges.insert(Published::NotBefore("server", name.clone()), f64::NAN);
            gauges.insert(Published::NotAfter("server", name.clone()), f64::NAN);
            gauges.insert(Published::Ratio(name.clone()), f64::NAN);
        }
        gauges.extend(self.gauges());
        for (gauge, value) in gauges {
            match gauge {
                Published::NotBefore(kind, name) => {
                    registry.gauge(NOT_BEFORE, &[("kind", kind.into()), ("name", name.shared())])
                }
                Published::NotAfter(kind, name) => {
                    registry.gauge(NOT_AFTER, &[("kind", kind.into()), ("name", name.shared())])
                }
                Published::State(kind, name, state) => registry
                    .gauge(PART_STATE, &[("kind", kind.into()), ("name", name.shared()), ("state", state.into())]),
                Published::Insecure(name) => registry.gauge(INSECURE, &[("upstream", name.shared())]),
                Published::Ratio(name) => registry.gauge(RESUMPTION_RATIO, &[("upstream", name.shared())]),
            }
            .set(value);
        }
    }

    fn origins(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.upstreams.values().flat_map(|upstream| upstream.servers()).filter_map(|server| server.origin.as_ref())
    }

    fn gauges(&self) -> Vec<(Published, f64)> {
        let mut gauges = Vec::new();
        for first in inventory::first_to_end(&self.inventory()) {
            let kind = first.kind.as_str();
            gauges.push((Published::NotBefore(kind, first.name.clone()), seconds(first.not_before)));
            let end = first.not_after.map(|end| (Published::NotAfter(kind, first.name.clone()), seconds(end)));
            gauges.extend(end);
        }
        // With passthrough the client verifies the server itself.
        for (name, upstream) in self.config.upstreams.iter().filter(|(_, upstream)| !upstream.passthrough) {
            let insecure = !matches!(upstream.tls.verify, values::Verify::Full);
            gauges.push((Published::Insecure(name.clone()), f64::from(u8::from(insecure))));
        }
        for (kind, name, current) in self.states() {
            let one = |state| (Published::State(kind, name.clone(), state), f64::from(u8::from(state == current)));
            gauges.extend(Part::<()>::STATES.map(one));
        }
        gauges
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Published {
    NotBefore(&'static str, Name),
    NotAfter(&'static str, Name),
    Insecure(Name),
    Ratio(Name),
    State(&'static str, Name, &'static str),
}

const INSECURE: &str = "egret_upstream_insecure";
const PART_STATE: &str = "egret_part_state";

/// A gauge is a float: exact to the second for any date of a certificate.
fn seconds(date: Date) -> f64 {
    date.0 as f64
}
