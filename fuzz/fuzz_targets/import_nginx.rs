//! Any text as configuration of nginx or stunnel: no panic, every directive accounted for, and what is made loads.
#![no_main]

use std::io;
use std::path::Path;

use egret::tools::import::files::{Files, ReadError};
use egret::tools::import::{Options, nginx, stunnel};
use libfuzzer_sys::fuzz_target;

struct Text<'a>(&'a str);

impl Files for Text<'_> {
    fn read(&self, path: &Path) -> Result<String, ReadError> {
        if path == Path::new("main") {
            Ok(self.0.to_owned())
        } else {
            Err(ReadError::System(io::ErrorKind::NotFound.into()))
        }
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }
}

fuzz_target!(|data: (u8, &str)| {
    let (mode, text) = data;
    let options = Options { faithful: mode & 1 != 0, redact: mode & 2 != 0, ..Options::default() };
    let imported = match mode & 4 {
        0 => nginx::import(&Text(text), Path::new("main"), &options),
        _ => stunnel::import(&Text(text), Path::new("main"), &options),
    };
    let Ok(imported) = imported else { return };
    assert!(imported.broken.is_none(), "what was made does not load");
    let [all, carried, found, listed] = imported.report.counts();
    assert_eq!(carried + found + listed, all);
    assert!(!imported.render(egret::config::Style::Plain).is_empty());
});
