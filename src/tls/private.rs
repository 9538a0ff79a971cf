//! Who can read a file with a secret.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Whether others can read a file than those for whom a secret in it is meant. As with PostgreSQL's key files, one that
/// belongs to root may be read by its group: so Kubernetes mounts secrets for a user who is not root.
#[must_use]
pub fn is_open(metadata: &Metadata) -> bool {
    is_open_to_others(metadata.uid(), metadata.mode())
}

fn is_open_to_others(owner: u32, mode: u32) -> bool {
    mode & if owner == 0 { 0o037 } else { 0o077 } != 0
}

#[cfg(test)]
mod tests {
    use super::is_open_to_others;

    #[test]
    fn a_secret_is_for_its_owner_and_where_that_is_root_for_its_group() {
        for (owner, mode, is_open) in [
            (65_532, 0o100_600, false),
            (65_532, 0o100_400, false),
            (65_532, 0o100_440, true),
            (65_532, 0o100_604, true),
            (0, 0o100_600, false),
            (0, 0o100_440, false),
            (0, 0o100_640, false),
            (0, 0o100_660, true),
            (0, 0o100_444, true),
            (0, 0o100_601, true),
        ] {
            assert_eq!(is_open_to_others(owner, mode), is_open, "{owner} {mode:o}");
        }
    }
}
