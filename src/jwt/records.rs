//! The log records of bearer tokens.

use crate::telemetry::record::records;

records! { "jwt";
    /// The address of `jwt.jwks_url` answers again, after it did not.
    INFO KeysFetched "the keys of bearer tokens could be fetched again";
    /// The address of `jwt.jwks_url` gives no keys. Those that were fetched before are still used; without any, no token
    /// is taken. It is asked again and again; this is told at the first failure only.
    ///
    /// See that the issuer's key set can be reached from here; `cause` says what failed.
    WARN KeysUnfetched<'a> "the keys of bearer tokens cannot be fetched" {
        cause: &'a str => value "cause",
    }
}
