//! A pool before a real PostgreSQL: the upgrade is over before a connection is warm.

use super::support::{takes, wait_for_warm};
use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::pki::Pki;
use crate::support::postgres::{Postgres, psql};
use crate::support::process::run;

const HOST: &str = "db.example.com";

#[test]
fn sessions_of_a_database_begin_on_warm_connections() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = Egret::start(&format!(
        "{}{}[upstreams.db]\nservers = [\"127.0.0.1:{}\"]\nupgrade = \"postgres\"\n\
         pool = {{ min_idle = 2, max_idle = 4 }}\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        pki.client("app").identity("app"),
        postgres.port,
        listener("db", free_port(), "db"),
    ));
    let port = egret.address("db").port();
    for round in 0..5 {
        wait_for_warm(&egret, 2);
        let rows = run(&mut psql(port, "disable", &format!("select ssl, {round} from pg_stat_ssl where ssl limit 1")));
        assert_eq!(rows.trim(), format!("t|{round}"));
    }
    assert_eq!((takes(&egret, "hit"), takes(&egret, "miss")), (5.0, 0.0), "{}", egret.log_text());
    assert_eq!(egret.metrics().sum("egret_origination_failures_total", &[]), 0.0, "{}", egret.log_text());
}
