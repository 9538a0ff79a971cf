//! Credentials that change under load.
