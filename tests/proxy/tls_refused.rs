//! Clients that get no TLS, as they see it: too old, too slow, not to be pleased, or not clients at all. None of them holds up another.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::*;
use super::tls_clients::*;

const REFUSED: &str = "floodway_connections_refused_total";

async fn plane(authority: &Authority, change: impl FnOnce(&mut floodway::settings::Settings)) -> Plane {
    secure_with(ended(to(mirror().await), "a.test", &[&authority.certificate(&["a.test"])]), change)
}

/// What a client gets that says this.
async fn answer(plane: &Plane, bytes: &[u8]) -> Vec<u8> {
    let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
    client.send(bytes).await;
    client.rest().await.bytes
}

/// The first words of a client of TLS 1.0, 1.1 or 1.2 (RFC 5246 7.4.1.2) that names `a.test` and takes RSA and ECDSA.
fn words(minor: u8) -> Vec<u8> {
    let extension = |kind: u8, content: &[u8]| [&[0, kind, 0, content.len() as u8], content].concat();
    let extensions = [
        extension(0, b"\x00\x09\x00\x00\x06a.test"),
        extension(10, &[0, 2, 0, 23]),
        extension(11, &[1, 0]),
        extension(13, &[0, 4, 4, 1, 4, 3]),
    ];
    let extensions = extensions.concat();
    let body = [
        &[3, minor][..],
        &[7; 32],
        &[0],
        // With ECDHE: AES in CBC, which versions before 1.2 had, and in GCM.
        &[0, 8, 0xc0, 0x13, 0xc0, 0x09, 0xc0, 0x2f, 0xc0, 0x2b],
        &[1, 0],
        &[0, extensions.len() as u8],
        &extensions,
    ];
    let body = body.concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[tokio::test]
async fn old_versions_are_refused() {
    let authority = Authority::new();
    let plane = plane(&authority, |_| {}).await;
    for (minor, times) in [(1, 1.0), (2, 2.0)] {
        let alert = answer(&plane, &words(minor)).await;
        assert!(alert.first() == Some(&21) && alert.ends_with(&[2, 70]), "protocol_version, not {alert:?}");
        plane.metric_becomes(REFUSED, "tls_incompatible", times).await;
    }
    // The same words are an answer's worth if the version is.
    let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
    client.send(words(3)).await;
    assert_eq!(within(client.0.read_u8()).await.unwrap(), 22, "a ServerHello");
    let mut newest = ended(to(mirror().await), "a.test", &[&authority.certificate(&["a.test"])]);
    let a = floodway::snapshot::HostPattern::parse("a.test").unwrap();
    let mut terms = floodway::snapshot::HostTls::clone(newest.tls.get(&a).unwrap());
    terms.min_version = Some(floodway::snapshot::TlsVersion::V1_3);
    newest.tls.insert(a, Arc::new(terms));
    assert!(plane.publisher.publish(newest));
    let alert = answer(&plane, &words(3)).await;
    assert!(alert.ends_with(&[2, 70]), "{alert:?}");
}

#[tokio::test]
async fn protocols_that_nobody_speaks_here_are_refused() {
    let authority = Authority::new();
    let plane = plane(&authority, |_| {}).await;
    let refused = shake(plane.secure, "a.test", &Arc::new(authority.trusted(&["spdy/3", "acme-tls/1"]))).await;
    assert!(refused.unwrap_err().to_string().contains("NoApplicationProtocol"));
    plane.metric_becomes(REFUSED, "tls_no_application_protocol", 1.0).await;
    for (offered, chosen) in [(&[][..], None), (&["spdy/3", "http/1.1"], Some(&b"http/1.1"[..]))] {
        let stream = shake(plane.secure, "a.test", &Arc::new(authority.trusted(offered))).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    }
}

/// An expired certificate goes on being served, and one for another name as well: it is clients who refuse them, and say so.
#[tokio::test]
async fn clients_refuse_certificates_that_are_not_good() {
    let authority = Authority::new();
    let table = ended(to(mirror().await), "old.test", &[&authority.expired(&["old.test"])]);
    let table = ended(table, "other.test", &[&authority.certificate(&["a.test"])]);
    let plane = secure(ended(table, "strange.test", &[&Authority::new().certificate(&["strange.test"])]));
    let config = Arc::new(authority.trusted(&[]));
    for (at, (host, why)) in
        [("old.test", "xpired"), ("other.test", "NotValidForName"), ("strange.test", "UnknownIssuer")]
            .iter()
            .enumerate()
    {
        let refused = shake(plane.secure, host, &config).await.unwrap_err().to_string();
        assert!(refused.contains(why) || refused.contains("not valid for name"), "{host}: {refused}");
        plane.metric_becomes(REFUSED, "tls_rejected", (at + 1) as f64).await;
    }
}

/// Takes any certificate whose key signs in one of these ways.
#[derive(Debug)]
struct Takes(Vec<SignatureScheme>);

impl ServerCertVerifier for Takes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// Of two certificates for one name, each client gets the one that it can verify; a client that can verify neither gets none.
#[tokio::test]
async fn clients_get_the_key_that_they_can_verify() {
    const NAMES: &[&str] = &["www.example.com"];
    let ecdsa = pair(NAMES, include_str!("../certificates/ecdsa.crt"), include_str!("../certificates/ecdsa.key"));
    let rsa = pair(NAMES, include_str!("../certificates/rsa.crt"), include_str!("../certificates/rsa.key"));
    let both = secure(ended(to(mirror().await), NAMES[0], &[&ecdsa, &rsa]));
    let alone = secure(ended(to(mirror().await), NAMES[0], &[&ecdsa]));
    let taking = |schemes: &[SignatureScheme], version| {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
        Arc::new(builder.with_custom_certificate_verifier(Arc::new(Takes(schemes.to_vec()))).with_no_client_auth())
    };
    use SignatureScheme as S;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (schemes, expected) in [
            (&[S::RSA_PSS_SHA256, S::RSA_PKCS1_SHA256][..], &rsa),
            (&[S::ECDSA_NISTP256_SHA256], &ecdsa),
            (&[S::RSA_PSS_SHA256, S::ECDSA_NISTP256_SHA256], &ecdsa),
        ] {
            let client = shake(both.secure, NAMES[0], &taking(schemes, version)).await.unwrap();
            let met = client.get_ref().1.peer_certificates().unwrap();
            assert!(met[0] == expected.key.cert[0], "{schemes:?}");
        }
        let refused = shake(alone.secure, NAMES[0], &taking(&[S::RSA_PSS_SHA256], version)).await.unwrap_err();
        assert!(refused.to_string().contains("HandshakeFailure"), "{refused}");
    }
    alone.metric_becomes(REFUSED, "tls_incompatible", 2.0).await;
}

/// Bytes that mean nothing are answered with no more than an alert, whatever they begin with.
#[tokio::test]
async fn garbage_is_closed_and_counted() {
    let authority = Authority::new();
    let plane = plane(&authority, |_| {}).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    let good = words(3);
    let mut sent = 0.0;
    for round in 0..200_usize {
        let mut bytes: Vec<u8> = match round % 4 {
            // Nothing at all, records of the right kind, and words with a few wrong letters.
            0 => (0..1 + round * 7).map(|_| random()).collect(),
            1 => [&[22, 3, 1, 1, 0][..], &[(); 256].map(|()| random())].concat(),
            2 => [&[22, 3, 1, 0, 200, 1, 0, 0, 196][..], &[(); 196].map(|()| random())].concat(),
            _ => good.clone(),
        };
        if round % 4 == 3 {
            // Lengths, where mistakes are made.
            for at in [3, 4, 6, 7, 8, 43, 44, 45][..1 + round % 8].iter() {
                bytes[*at] = random();
            }
            bytes[5] = 1 + (random() | 1);
        }
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        let _ = client.0.write_all(&bytes).await;
        let _ = client.0.shutdown().await;
        let said = client.rest().await.bytes;
        assert!(said.len() <= 7 && (said.is_empty() || said[0] == 21), "{bytes:?} got {said:?}");
        sent += 1.0;
        plane.metric_becomes(REFUSED, "", sent).await;
    }
    assert!(shake(plane.secure, "a.test", &Arc::new(authority.trusted(&[]))).await.is_ok());
}

/// Byte by byte, or with nothing behind the first words: the time for the whole handshake ends both, and others come through.
#[tokio::test]
async fn who_drips_has_no_longer_than_others() {
    let authority = Authority::new();
    let plane = plane(&authority, |settings| {
        settings.listeners.tls.handshake_timeout = Duration::from_secs(2);
    });
    let plane = plane.await;
    let dripping = async {
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        let all = words(3);
        let mut dripped = 0;
        for byte in &all {
            if client.0.write_all(&[*byte]).await.is_err() {
                break;
            }
            dripped += 1;
            let pause = Duration::from_millis(50);
            if let Ok(read) = tokio::time::timeout(pause, client.0.read_u8()).await {
                assert!(read.is_err(), "an answer to half a word");
                break;
            }
        }
        assert!(dripped < all.len(), "it had all the time that it wanted");
    };
    let silent = async {
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        client.send(words(3)).await;
        let mut said = Vec::new();
        let _ = within(client.0.read_to_end(&mut said)).await;
        assert_eq!(said[0], 22, "a ServerHello, and then nothing");
    };
    let others = async {
        for _ in 0..20 {
            assert!(shake(plane.secure, "a.test", &Arc::new(authority.trusted(&[]))).await.is_ok());
        }
    };
    tokio::join!(dripping, silent, others);
    plane.metric_becomes(REFUSED, "tls_timeout", 2.0).await;
}

/// HTTP without TLS where TLS is spoken: an alert, and nothing that a cache could keep.
#[tokio::test]
async fn plain_http_is_no_tls() {
    let authority = Authority::new();
    let plane = plane(&authority, |_| {}).await;
    for words in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let said = answer(&plane, words.as_bytes()).await;
        assert!(said.len() <= 7 && (said.is_empty() || said[0] == 21), "{said:?}");
    }
    plane.metric_becomes(REFUSED, "tls_not_tls", 2.0).await;
    // And the other way round.
    let refused = shake(plane.address, "a.test", &Arc::new(authority.trusted(&[]))).await;
    assert!(refused.is_err());
}
