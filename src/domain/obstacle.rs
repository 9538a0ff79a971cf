//! What keeps a request from being processed, so that it certainly was not applied.

/// Why the upstream certainly did not process a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No connection: refused, reset, or a proxy on the way said no.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The host's name could not be resolved.
    Name,
    /// The certificate has expired.
    TlsExpired,
    /// The certificate is for another host.
    TlsWrongHost,
    /// The certificate was issued by nobody whom the adapter trusts.
    TlsUnknownAuthority,
    /// There is no TLS version that both sides speak.
    TlsVersion,
    /// The other side does not speak TLS at all.
    TlsAbsent,
    /// No secure connection for another reason.
    Tls,
    /// The connection ended before anything of the request was written, or nothing was to be written at all.
    Unsent,
    /// The upstream said that it did not process the request (RFC 9113, 8.7): it may be sent again on another connection.
    StreamRefused,
}

impl Obstacle {
    /// The stable name, as in `error.type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Name => "dns",
            Self::TlsExpired => "tls_expired",
            Self::TlsWrongHost => "tls_wrong_host",
            Self::TlsUnknownAuthority => "tls_unknown_authority",
            Self::TlsVersion => "tls_version",
            Self::TlsAbsent => "tls_absent",
            Self::Tls => "tls",
            Self::Unsent => "unsent",
            Self::StreamRefused => "stream_refused",
        }
    }

    /// What a caller is told.
    #[must_use]
    pub const fn public_text(self) -> &'static str {
        match self {
            Self::Connect => "no connection to the upstream could be made",
            Self::ConnectTimeout => "no connection to the upstream could be made in time",
            Self::Name => "the upstream's host name could not be resolved",
            Self::TlsExpired => "the upstream's certificate has expired",
            Self::TlsWrongHost => "the upstream's certificate is for another host",
            Self::TlsUnknownAuthority => "the upstream's certificate was issued by an unknown authority",
            Self::TlsVersion => "the upstream and the adapter have no TLS version in common",
            Self::TlsAbsent => "the upstream does not speak TLS",
            Self::Tls => "no secure connection to the upstream could be made",
            Self::Unsent => "the request could not be sent to the upstream",
            Self::StreamRefused => "the upstream refused the request before it processed it",
        }
    }
}
