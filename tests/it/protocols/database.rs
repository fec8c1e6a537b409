//! MySQL, as `config/mysql.toml` has it; more of it is in `mysql`.

use super::Example;
use crate::support::free_port;
use crate::support::mariadb::{MariaDb, mariadb};
use crate::support::pki::Pki;
use crate::support::process::run;

#[test]
fn mariadb_asks_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = MariaDb::start(&pki, &pki.server(&["db.example.com"]));
    let egret = Example::read("mysql.toml")
        .files("app", &pki.client("app"), "database-ca", &pki)
        .server("db.example.com:3306", server.port)
        .server("db-standby.example.com:3306", free_port())
        .listener("127.0.0.1:3306")
        .start();
    for round in 0..3 {
        let query = format!("select current_user(), {round}");
        let rows = run(&mut mariadb(egret.address("mysql").port(), "named", &["--execute", &query]));
        assert_eq!(rows.trim(), format!("named@%\t{round}"), "{}", egret.log_text());
    }
}
