//! Tokens and keys that others have made, for tests.

/// RFC 7515 A.1 and RFC 7519 3.1: HMAC with SHA-256.
pub(super) const A1: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const A1_KEYS: &str = r#"{"keys": [{"kty": "oct", "alg": "HS256",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;

/// RFC 7515 A.2: RSA with SHA-256.
pub(super) const A2: &str = "eyJhbGciOiJSUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQ\
     jbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt\
     FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
pub(super) const A2_KEYS: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;

/// RFC 7515 A.3: ECDSA on P-256.
pub(super) const A3: &str = "eyJhbGciOiJFUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
pub(super) const A3_KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// RFC 7515 A.4: ECDSA on P-521, of something that is no token.
pub(super) const A4: &str = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.\
     AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpR\
     wcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
pub(super) const A4_KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}]}"#;

/// RFC 7515 A.5: not signed at all.
pub(super) const A5: &str = "eyJhbGciOiJub25lIn0.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";

/// When the token of RFC 7519 3.1 expires, like those of RFC 7515.
pub(super) const EXPIRES: u64 = 1_300_819_380;

/// Made with OpenSSL: the modulus of a key, and claims signed with it.
pub(super) const RSA_N: &str = "wNqmT7a2tY-ps8AheE8VTK-KAs05ks77e72XM51iO8dBhJiaWj1rRxS9BnWBfPrtXzcyY7V3RzNLcG3iN0UHnh1UIDT8VkGOdgpQzbQnrUElllbfbGoMOOFJN4WXTWu0Qx6x5j6YIZgtPBk7Cy-QhJgcKMXPx1O-WhYAfrQxSnUAJ1WM4ZAXlsOgYWqB5zhS73yiSQeziMbpzNkdKNsXqXdtHLlwtEHqTLZrFXL94bVKXYpMR9FrKUc8t3daJ9obu_BcB_gupKnIT5eRgLLp7MAHhP_jV8WfgOSPeRE4N9bfGapXYMk3mM94DNL4wpg31kkPRUAIcPJkETNV-YT6zw";
pub(super) const RSA_SIGNED: [(&str, &str); 6] = [
    (
        "RS256",
        "eyJhbGciOiAiUlMyNTYifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.R0_s85V0RjWn0WNGH5D5o9wiP3CxW8QpZmlIWuH9XElBH46J3n5ODAa4J2f7s7tjuc5cAOJs8czwCbqYbiozR-qmzY1ylg4lhdYRS2SESvDmFpmGP7oi9jLx0rDtDtMbglDFarg5ZgD3tUtpPUUkI6BdLS5MokZaPxmi5VjU2yjuP6K-vrInNOU7ZxAog-7pqhj9S0sjjA4uX4BdS4URXHHEmH98tei9vVXu3qKupMQHGz8VgNEVlx7l2X5m1LOeN7RYGjZ8J5-NVl54ldLFoCp6MbqRNfkZc_i6YLFUhCUQVpML2A2Qhj66eqismYFUvyxc4nvxjIWn7dfZ3_YqCw",
    ),
    (
        "RS384",
        "eyJhbGciOiAiUlMzODQifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.idqNNxu04pEIors2ssWnbzf4nWrTchMIwIuvam9wAwfKezoBRLoDIm1CuzClgKQJTo-K6L6s-u3DEZs-I3rQbyaO63O6zoq67xz2A5vPqpcHwQ7yKDR2F44M5e80JxrAu8k7fBJplEHrYnVGwn3izLc91W9UFC--OWuOW_sqRvhktlW5aqHQJ2Ac5UtnAKbDjEIBQ5l7uTqyw3xz34ON8nRdUgr3ZwImM6bXwkyp4hLrKlh7arjTZ_jFbPLW-YLQDog1g07gntVtDdYMXPUXyB6O3VHe1-zg1nVe-cTEfbtN0iXERwBmWpA89e5UNP69B_VWnX_Ilx0GYrctiTw6Pg",
    ),
    (
        "RS512",
        "eyJhbGciOiAiUlM1MTIifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.uOu7hgdLG-4wB4oxtHMPXhioXlh-5Q8B2wLXB6wO2HzWXhKUXB5FeklItNnGu9U8BhrCje0y5uCVG2BpH500r00IXnNdaBFVaXnVZt5Wy7Jy-XhJSQcf3oCjnTA5iUlp_UlPGNGtCHOHW5xO4-8tZ_kWkbHfVn30z2oXJEzv7S2-VuNi8uZhY0sQOE7sRQ8hB_IUX3F1h5UQcpEH30774iq3UfrEVveBsputHmrsh_3akwBNvX8lBI16kD-IYefAwxssX3Vuyapumi5irSiB8V8ON2APVwaP7d5mB-Dj1eJ7hX0EHwrtKIfNaVb6DD9tcFUrY_g_pgu-y218o8SjfQ",
    ),
    (
        "PS256",
        "eyJhbGciOiAiUFMyNTYifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.ERXqsXR9ZuiWtXp1GBnBcdsHgvnnDmtnxxzE-j-pUoiQFdkitfnUWseLqv243JhfDsphtHofnEVp0SQqYwhFjz9Mvs6lOMsAJGkxkLoXHqd8_APviJbblxvIlYQ1IDibmJuTA3jXNDOXvjElVZxUCd2jTvMH--ETUJviBiwXw0g1l308EAC2ssCCAi42fCEBmoaTtL7HK0A3bXHOt4FxuV_ujH4ymLei8Wyelj2YTpgwl4nU0ukopfik47xFx3ErXc3wRdUMQNQP0HekvTgvGy5d-a4WpqqYy1YSFhtpW_M6q-50Er-3EkuGZIRE0SZI9OdaNGFnR9EWoIm7TZf5Ew",
    ),
    (
        "PS384",
        "eyJhbGciOiAiUFMzODQifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.R0-JvS4ajTbtzf7F-1Es0UmXz_GI_q7obtQBjHOb7BB7Rw8aJXFiCTAMz_LXrW-9Fqd2nka4rVGgaXo_pc2A2xapam39X91gcXeFyp0-92uXuWHbfFuKJTdt7ZYtXwyr1prwCwBg2_IvU2xhUdw7FA9BW0Zje74sZVnyQI452GEdLtpa1ifc08F64Ep63Ifi3UphOA-o2L_ImMTBSO6n7VazRK6ex0drKeittGtVKzHvI__xl9HBxb-bWU41VkCRND8RhaGgLDRoOYpyzmDrj81j1hpX66y8kegS8IDCHZVir_WsPqbeD4gF2t3CUvKm-5Dqt28sYm5oAYoEj2eQsg",
    ),
    (
        "PS512",
        "eyJhbGciOiAiUFM1MTIifQ.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.kmKPxMSw59LoE0Cr_1Sc6MRFr_m358BnbBoC8nFSiVcsxCJKLEISp3csb_q96ax7hXfiPYOvh76Cprq9XvDS7ked5-mk8S7ldr07WZy2GDcHo84Ka8NL7R1mt3QbtfWb7Xl1aZHUX68mkoAYdJdLa--BvC18pl9XFcHpei7qJk0RDiS_YpVQveRyKQTNsA5tnr336nBVru05GmNJQCVnS8du_Urib4KmkGRpZTVKWHC4qAS9hZT_uimfRGtsefant-nOPUMBjulOMwsh3u4gRbAmAkbunK1nALH8uUfDsASuxVflNo8D2w0Tk9qmOnLWaO22yMeDJgNXh_BOsyH1oQ",
    ),
];
