//! How much a reload would find, in words: with numbers where a running process was asked.

use serde_json::Value;

pub(super) struct Live<'a> {
    /// By upstream; null where two files are compared.
    counts: &'a Value,
    upstreams: &'a Value,
}

impl<'a> Live<'a> {
    pub(super) fn of(outline: &'a Value) -> Self {
        Self { counts: &outline["live"], upstreams: &outline["settings"]["upstreams"] }
    }

    pub(super) fn dropped(&self, upstream: &str, server_name: &str) -> String {
        let counts = &self.counts[upstream]["origins"][server_name];
        let tickets = match counts["tickets"].as_u64() {
            Some(count) => format!("its {}", counted(count, "ticket")),
            None => "its tickets".to_owned(),
        };
        let most = &self.upstreams[upstream]["pool"]["max_idle"];
        let warm = match (counts["warm"].as_u64(), most.is_null()) {
            (_, true) => String::new(),
            (Some(count), false) => format!(" and {}", counted(count, "warm connection")),
            (None, false) => format!(" and warm connections (at most {most})"),
        };
        format!("{tickets}{warm} are dropped at once: nothing crosses; {}", self.streams(upstream))
    }

    pub(super) fn warm(&self, upstream: &str, most: &Value) -> String {
        let counts = self.counts[upstream]["origins"].as_object();
        let warm: Option<u64> =
            counts.map(|origins| origins.values().filter_map(|counts| counts["warm"].as_u64()).sum());
        match warm {
            Some(count) => format!("what is warm ({count} of at most {most})"),
            None => format!("what is warm (at most {most})"),
        }
    }

    pub(super) fn streams(&self, upstream: &str) -> String {
        match self.counts[upstream]["streams"].as_u64() {
            Some(count) => format!("its streams in flight ({count}) go on as they began"),
            None => "its streams in flight go on as they began".to_owned(),
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
