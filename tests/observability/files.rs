//! Files of the repository.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The text of a file.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files of a folder with this ending, by name, in order. Folders below it are not looked into.
pub fn of(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(&format!(".{ending}"))).collect();
    names.sort();
    assert!(!names.is_empty(), "no .{ending} files in {folder}");
    let named = names.into_iter().map(|name| format!("{folder}/{name}"));
    named.map(|name| (name.clone(), text(&name))).collect()
}
