//! The JSON schema of a configuration file, for editors.

use schemars::generate::SchemaSettings;

use crate::config::file::File;

/// The schema (JSON Schema, draft 2020-12), derived from the types that read the file.
pub fn schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "egret".into());
    schema.into()
}
