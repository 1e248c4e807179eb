//! What a token costs a request: one that is known, and one that is verified for the first time.

use std::sync::Arc;
use std::time::Duration;

use floodway::proxy::Tokens;
use floodway::snapshot::{FetchedKeys, Issuer, IssuerKeys, Jwt, Keys, RemoteKeys};

use crate::issuer::es256;
use crate::measure::{Report, shown, time};

/// RFC 7515 A.2: RSA with SHA-256, and its key.
const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQ\
     jbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt\
     FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RSA: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;

fn given(keys: &str) -> IssuerKeys {
    Keys::read(keys.as_bytes(), &[], false).unwrap().into()
}

/// Keys that are fetched, and may be others at any time.
fn fetched(keys: &str) -> IssuerKeys {
    let place = FetchedKeys::new(Arc::default());
    place.put(Keys::fetched(keys.as_bytes()).unwrap(), u64::MAX);
    let (fetched, max_stale) = ("https://id.test/keys".into(), Duration::from_secs(60));
    IssuerKeys::Fetched(RemoteKeys { fetched, max_stale, algorithms: [].into(), keys: Some(place) })
}

fn jwt(keys: IssuerKeys) -> Arc<Jwt> {
    Arc::new(Jwt {
        issuers: [Issuer { issuer: "joe".into(), audiences: [].into(), keys }].into(),
        from: [].into(),
        skew: Duration::ZERO,
        required: [].into(),
        headers: [].into(),
        forward: false,
        close_code: None,
        realm: "r".into(),
    })
}

pub(crate) fn run(report: &mut Report) {
    report.table("A token of a request", &["Token", "Bytes", "Known", "Verified for the first time"]);
    let (key, token) = es256(1_300_819_380);
    for (name, keys, token) in [
        ("ES256", given(&key), &*token),
        ("ES256, keys from a URL", fetched(&key), &*token),
        ("RS256, 2048 bits", given(RSA), RS256),
    ] {
        let (jwt, tokens) = (jwt(keys), Tokens::default());
        tokens.verify(&jwt, token.as_bytes(), 2).unwrap();
        let known = time(|| tokens.verify(&jwt, token.as_bytes(), 2).unwrap());
        // What has expired is verified before that is said, and not remembered.
        let strange = Tokens::default();
        let first = time(|| strange.verify(&jwt, token.as_bytes(), u64::MAX).unwrap_err());
        report.row(&[name, &token.len().to_string(), &shown(known), &shown(first)]);
    }
}
