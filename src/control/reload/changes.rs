//! What of the listeners differs between two generations. Found beside the streams, since looking at ten thousand takes longer
//! than a round trip may; the swap does what is left.

use std::collections::HashMap;

use crate::config::values::{Config, ListenAddress, Listener, ListenerKey};
use crate::net;

pub(super) struct Changes {
    /// Those that both generations have and that have something to follow: as they are now, and as they were before.
    pub(super) kept: Vec<(Listener, Listener)>,
    /// Those that only the new generation has.
    pub(super) added: Vec<Listener>,
    pub(super) gone: Vec<ListenerKey>,
}

impl Changes {
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let mut before: HashMap<ListenerKey, &Listener> = old.listeners.iter().map(|spec| (spec.key(), spec)).collect();
        let (mut kept, mut added) = (Vec::new(), Vec::new());
        for spec in &new.listeners {
            match before.remove(&spec.key()) {
                Some(was) if was.tcp != spec.tcp || is_unix(spec) => kept.push((spec.clone(), was.clone())),
                Some(_) => {}
                None => added.push(spec.clone()),
            }
        }
        Self { kept, added, gone: before.into_keys().collect() }
    }

    /// Listeners on Unix sockets keep them; the file gets its new mode.
    pub(super) fn follow_modes(&self) {
        for (spec, _) in &self.kept {
            if let ListenAddress::Unix { path, mode } = &spec.listen
                && let Err(error) = net::set_mode(path, *mode)
            {
                tracing::warn!(listener = %spec.name, %error, "the mode of the socket stays");
            }
        }
    }

    pub(super) fn warn_of_what_needs_a_restart(&self, old: &Config, new: &Config) {
        let fixed: [(&str, bool); 6] = [
            ("runtime", old.runtime != new.runtime),
            ("limits", old.limits != new.limits),
            ("log.format", old.log.format != new.log.format),
            ("admin", old.admin != new.admin),
            ("reload.watch", old.reload != new.reload),
            (
                "listeners.tcp.multipath",
                self.kept.iter().any(|(spec, before)| spec.tcp.multipath != before.tcp.multipath),
            ),
        ];
        for (setting, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(setting, "changed, but takes effect only at the next start");
        }
    }
}

fn is_unix(spec: &Listener) -> bool {
    matches!(spec.listen, ListenAddress::Unix { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(listeners: &[&str]) -> Config {
        let upstream = "[upstreams.origin]\nservers = [\"origin.example.com:443\"]\n".to_owned();
        let listener = |keys: &&str| format!("[[listeners]]\nupstream = \"origin\"\n{keys}\n");
        let text = upstream + &listeners.iter().map(listener).collect::<String>();
        config::parse("egret.toml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    #[test]
    fn a_swap_looks_only_at_listeners_that_have_something_to_follow() {
        let (one, two) = ("listen = \"127.0.0.1:1001\"", "listen = \"127.0.0.1:1002\"");
        let other = "listen = \"127.0.0.1:1001\"\ntcp = { keepalive = \"2m\" }";
        let unix = "listen = \"unix:/run/egret/socket\"";
        for (old, new, kept, added, gone) in [
            (&[one, two][..], &[two, one][..], 0, 0, 0),
            (&[one], &[one, two], 0, 1, 0),
            (&[one, two], &[two], 0, 0, 1),
            (&[one], &[two], 0, 1, 1),
            (&[one, two], &[other, two], 1, 0, 0),
            (&[unix], &[unix, one], 1, 1, 0),
        ] {
            let changes = Changes::between(&config(old), &config(new));
            let found = (changes.kept.len(), changes.added.len(), changes.gone.len());
            assert_eq!(found, (kept, added, gone), "{old:?} to {new:?}");
        }
    }
}
