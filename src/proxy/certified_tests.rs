//! What endpoints are told of a client.

use super::*;

fn identity() -> Identity {
    Identity {
        subject: Some("CN=cart,O=Shop\\, Ltd".into()),
        issuer: Some("CN=ca".into()),
        dns: ["a.example".into(), "b.example".into()].into(),
        uris: ["spiffe://td/cart".into(), "https://a/?b=c".into()].into(),
        mails: ["ops@a.example".into()].into(),
        fingerprint: "00ff".into(),
    }
}

fn lines(headers: ClientHeaders, others: &[&'static [u8]]) -> Vec<(&'static str, String)> {
    let others: Vec<_> = others.iter().map(|one| CertificateDer::from(*one)).collect();
    let told = told(&identity(), &CertificateDer::from(&[1, 2, 3, 4][..]), &others, headers);
    told.into_iter().map(|(name, value)| (name, value.into())).collect()
}

#[test]
fn each_form_is_what_its_readers_know() {
    let none = ClientHeaders::default();
    assert_eq!(lines(none, &[b"a"]), []);
    // RFC 8941 3.3.5: "sf-binary = ":" *(base64) ":"".
    assert_eq!(lines(ClientHeaders { certificate: true, ..none }, &[b"a"]), [("client-cert", ":AQIDBA==:".to_owned())]);
    let chain = ClientHeaders { chain: true, ..none };
    assert_eq!(lines(chain, &[b"a", b"b"]), [("client-cert-chain", ":YQ==:, :Yg==:".to_owned())]);
    assert_eq!(lines(chain, &[]), []);
    let xfcc = "Hash=00ff;Subject=\"CN=cart,O=Shop\\, Ltd\";DNS=a.example;DNS=b.example;URI=spiffe://td/cart;URI=\"https://a/?b=c\"";
    assert_eq!(lines(ClientHeaders { xfcc: true, ..none }, &[]), [("x-forwarded-client-cert", xfcc.to_owned())]);
    let expected = [
        ("ssl-client-verify", "SUCCESS"),
        ("ssl-client-subject-dn", "CN=cart,O=Shop\\, Ltd"),
        ("ssl-client-issuer-dn", "CN=ca"),
        ("ssl-client-fingerprint", "00ff"),
        (
            "ssl-client-san",
            "DNS:a.example, DNS:b.example, URI:spiffe://td/cart, URI:https://a/?b=c, email:ops@a.example",
        ),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(lines(ClientHeaders { ssl_client: true, ..none }, &[]), expected);
}
