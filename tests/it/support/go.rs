//! go-sql-driver/mysql, from Debian's package: a program that logs in and asks for its user.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::process::run;

const PROGRAM: &str = r#"
package main

import (
	"database/sql"
	"fmt"
	"os"

	_ "github.com/go-sql-driver/mysql"
)

func main() {
	db, err := sql.Open("mysql", os.Args[1])
	if err == nil {
		err = db.Ping()
	}
	user := "in"
	if err == nil && len(os.Args) > 2 {
		err = db.QueryRow(os.Args[2]).Scan(&user)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(user)
}
"#;

/// Logs in as `user`, and prints `in` or the one value of a query.
pub(crate) fn go_mysql(port: u16, user: &str, password: &str, query: &[&str]) -> Command {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| build(TempDir::new().unwrap()));
    let mut command = Command::new(folder.path().join("client"));
    command.arg(format!("{user}:{password}@tcp(127.0.0.1:{port})/")).args(query);
    command
}

fn build(folder: TempDir) -> TempDir {
    let source = folder.path().join("client.go");
    std::fs::write(&source, PROGRAM).unwrap();
    let mut build = Command::new("/usr/bin/go");
    build.args(["build", "-o"]).arg(folder.path().join("client")).arg(&source).current_dir(Path::new("/"));
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", folder.path().join("cache"));
    run(&mut build);
    folder
}
