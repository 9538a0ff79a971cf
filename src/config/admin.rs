//! The lock of the admin door: who can open it, and that it is not open to a network by mistake.

use secrecy::ExposeSecret as _;

use super::fault::Faults;
use super::sections::Admin;

/// A shorter token could be guessed.
const TOKEN_LENGTH_MIN: usize = 16;

/// What fits into a header.
const TOKEN_LENGTH_MAX: usize = 4096;

impl Admin {
    /// Whether others than this machine can reach it.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }
}

/// Notes every rule that the door breaks.
pub(super) fn check(admin: &Admin, faults: &mut Faults) {
    if let Some(token) = &admin.token {
        let token = token.expose_secret();
        let is_long_enough = (TOKEN_LENGTH_MIN..=TOKEN_LENGTH_MAX).contains(&token.len());
        if !is_long_enough || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let rule = format!(
                "must be {TOKEN_LENGTH_MIN} to {TOKEN_LENGTH_MAX} visible ASCII characters without spaces (its value is \
                 not shown); make one with `openssl rand -hex 32`"
            );
            faults.push("admin.token", rule);
        }
    }
    // A file that could not be read is a fault already.
    let has_token = admin.token.is_some() || admin.token_file.is_some();
    if admin.is_beyond_loopback() && !has_token && !admin.insecure {
        let rule = format!(
            "is {}, which others than this machine can reach: give `admin.token_file`, or listen on 127.0.0.1, or say \
             `admin.insecure = true` if metrics may be read by all who reach it",
            admin.listen
        );
        faults.push("admin.listen", rule);
    }
}
