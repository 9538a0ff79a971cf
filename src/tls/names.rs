//! The names in a client's certificate.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Names of one certificate that are looked at, at most.
const NAMES_MAX: usize = 100;

/// The DNS names and URIs among the subject alternative names of a certificate in DER form. The subject's common name is
/// none of them: it may hold anything. None if it cannot be read.
///
/// No name of one kind can pass for one of the other: a DNS name has no colon, a URI has one. Of several URIs none counts that
/// is a SPIFFE id: it must be the only one (SPIFFE X.509-SVID, section 2).
#[must_use]
pub fn of(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let all = &alternatives.value.general_names;
    let has_one_uri = all.iter().filter(|name| matches!(name, GeneralName::URI(_))).count() == 1;
    let names = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if !name.contains([':', '/']) => Some((*name).to_owned()),
        GeneralName::URI(name) if name.contains(':') && (has_one_uri || !is_spiffe(name)) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    names.take(NAMES_MAX).collect()
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn only_dns_names_and_uris_are_names() {
        let mut params =
            CertificateParams::new(["billing.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        let uri = "spiffe://example.org/billing";
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("mail@example.org".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(of(certificate.der()), ["billing.example", uri]);
    }

    #[test]
    fn no_name_passes_for_one_of_another_kind() {
        let of_names = |names: Vec<SanType>| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.subject_alt_names = names;
            of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
        };
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        assert_eq!(of_names(vec![dns("spiffe://example.org/billing"), dns("b.example")]), ["b.example"]);
        assert_eq!(of_names(vec![uri("billing.example"), uri("urn:x")]), ["urn:x"]);
        // A SPIFFE id stands alone.
        assert_eq!(of_names(vec![uri("spiffe://a/b"), uri("SPIFFE://a/c"), dns("b.example")]), ["b.example"]);
        assert_eq!(of_names(vec![uri("spiffe://a/b"), dns("b.example")]), ["spiffe://a/b", "b.example"]);
    }

    #[test]
    fn what_cannot_be_read_has_no_names() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(of(certificate.der()), [""; 0]);
        assert_eq!(of(&certificate.der()[..40]), [""; 0]);
        assert_eq!(of(b""), [""; 0]);
    }
}
