//! The rules for where commands are kept.

use url::form_urlencoded;

use super::fault::Faults;
use super::sections::Store;
use crate::mycreditapp::roots;

impl Store {
    /// Whether the connection to the database is encrypted, or else not made.
    fn is_encrypted(&self) -> bool {
        // An address with several hosts is no URL for others than PostgreSQL.
        let query = self.url.as_deref().and_then(|url| url.split_once('?')).map_or("", |(_, query)| query);
        let modes = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "sslmode");
        // Of a parameter that is given twice the last one counts.
        modes.last().is_some_and(|(_, mode)| mode == "require")
    }
}

/// Notes every rule that it breaks.
pub(super) fn check(store: &Store, faults: &mut Faults) {
    if store.path.as_os_str().is_empty() {
        faults.push("store.path", "is empty, must name a file");
    }
    let unfit = store.ca_file.as_deref().map(roots::read).and_then(Result::err);
    match store.database() {
        Err(rule) => match unfit {
            Some(error) => faults.push("store.ca_file", error.to_string()),
            None => faults.push("store.url", rule),
        },
        Ok(None) if store.password.is_some() || store.ca_file.is_some() => {
            faults.push("store.url", "must be given where there is a password or a `ca_file` for it");
        }
        Ok(Some(_)) if store.ca_file.is_some() && !store.is_encrypted() => {
            faults.push("store.url", "needs `sslmode=require` where there is a `ca_file`: else whoever is in between can have the connection in the clear");
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[track_caller]
    fn faults(url: &str, with_ca: bool) -> String {
        let (mut store, mut faults) =
            (Store { url: Some(url.to_owned()), ..Store::default() }, Faults::default());
        let file = tempfile::NamedTempFile::new().unwrap();
        if with_ca {
            let CertifiedKey { cert, .. } = generate_simple_self_signed(["database".to_owned()]).unwrap();
            std::fs::write(file.path(), cert.pem()).unwrap();
            store.ca_file = Some(file.path().to_owned());
        }
        check(&store, &mut faults);
        faults.to_string()
    }

    #[test]
    fn an_authority_is_of_no_use_where_the_connection_may_be_in_the_clear() {
        for url in [
            "postgres://db/x",
            "postgres://db/x?sslmode=prefer",
            "postgres://db/x?sslmode=disable",
            "postgres://db/x?sslmode=require&sslmode=prefer",
            "postgres://db-1:5432,db-2:5432/x",
        ] {
            assert_eq!(faults(url, false), "", "{url}");
            assert!(faults(url, true).starts_with("store.url: needs `sslmode=require`"), "{url}");
        }
        for url in [
            "postgres://db/x?sslmode=require",
            "postgres://db-1:5432,db-2:5432/x?connect_timeout=3&sslmode=require",
        ] {
            assert_eq!(faults(url, true), "", "{url}");
        }
    }
}
