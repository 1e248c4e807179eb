//! What of a policy can be asked only of HTTP, and not of a connection whose content nobody here can read.

use super::Policy;

impl Policy {
    /// The name of a section that says who may pass, or how much, by more than an address. Sections that only change what requests
    /// and answers look like are none.
    pub fn beyond_address(&self) -> Option<&'static str> {
        let Policy {
            invalid: _,
            ip_access: _,
            // It protects readers of answers, whose browsers ask for it.
            cors: _,
            headers: _,
            compression: _,
            error_pages: _,
            mirror: _,
            request_limits,
            client_certificate,
            basic_auth,
            api_key,
            rate_limit,
            jwt,
            external_auth,
        } = self;
        let asked = [
            ("requestLimits", request_limits.is_some()),
            ("clientCertificate", client_certificate.is_some()),
            ("basicAuth", basic_auth.is_some()),
            ("apiKey", api_key.is_some()),
            ("rateLimit", rate_limit.is_some()),
            ("jwt", jwt.is_some()),
            ("externalAuth", external_auth.is_some()),
        ];
        asked.into_iter().find(|(_, asked)| *asked).map(|(name, _)| name)
    }
}
