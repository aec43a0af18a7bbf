//! `[models.NAME]`: where a base model comes from, and what it must be.

use std::str::FromStr;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::model::{At, ModelSection};
use super::table::Table;
use crate::digest::Digest;

fn read_digest(table: &mut Table<'_, '_>, text: &At<String>) -> Option<Digest> {
    Digest::from_str(&text.value)
        .map_err(|error| table.report(Diagnostic::new(text.span.clone(), error.to_string())))
        .ok()
}

/// Reads `[models.NAME]`, which stands in pipelines and in settings.
pub fn read_model_section(
    table: &DeTable<'_>,
    name: &At<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<ModelSection> {
    let title = format!("[models.{}]", name.value);
    let mut table = Table::new(table, title.clone(), name.span.clone(), diagnostics);
    let sources = table.texts("sources");
    if sources.as_ref().is_none_or(Vec::is_empty) {
        table.missing("sources", "[\"hf:OWNER/NAME@REVISION\"]");
    }
    let sha256 = table
        .required_text("sha256", "\"the digest of model.safetensors\"")
        .and_then(|text| read_digest(&mut table, &text));
    let files = table.table("files");
    table.finish();
    let mut pinned = Vec::new();
    if let Some((files, span)) = files {
        let mut table = Table::new(files, format!("{title} files"), span, diagnostics);
        for (file, digest) in table.free_texts() {
            if let Some(digest) = read_digest(&mut table, &digest) {
                pinned.push((file, digest));
            }
        }
    }
    Some(ModelSection {
        sources: sources?,
        sha256: sha256?,
        files: pinned,
    })
}
