//! One file after the other from a hub, over HTTP. The token goes to the hub alone: large files
//! lie on other hosts, to which the hub leads with a redirect.

use std::time::Duration;

use ureq::http::uri::Scheme;
use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::{Agent, Body, Error};

/// The first answer must come within this time.
const ANSWER: Duration = Duration::from_secs(6);
/// Later ones within this, and so must each piece of a file.
const STALL: Duration = Duration::from_secs(30);
/// A hub needs one or two.
const REDIRECTS: usize = 5;

/// A repository of a hub at one revision.
pub(super) struct Web {
    agent: Agent,
    endpoint: String,
    /// What comes before a file's name.
    base: String,
    token: Option<String>,
    patience: Duration,
}

impl Web {
    pub(super) fn new(
        endpoint: &str,
        token: Option<String>,
        (repository, revision): (&str, &str),
    ) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The token would go along.
            .max_redirects(0)
            .timeout_resolve(Some(ANSWER))
            .timeout_connect(Some(ANSWER))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .build();
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let revision = revision.replace('/', "%2F");
        Self {
            agent: config.into(),
            base: format!("{endpoint}/{repository}/resolve/{revision}"),
            endpoint,
            token,
            patience: ANSWER,
        }
    }

    /// The body of a file; `None` when the hub has none of this name.
    ///
    /// # Errors
    /// When it does not answer, or answers something else.
    pub(super) fn get(&mut self, name: &str) -> Result<Option<Body>, String> {
        let wrong = || format!("{} is no address of a web server", self.endpoint);
        let mut address = parse(&format!("{}/{name}", self.base)).ok_or_else(wrong)?;
        let hub = Origin::of(&address);
        let mut token = self.token.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.ask(&address, token.as_deref())?;
            let is_hub = Origin::of(&address) == hub;
            match answer.status().as_u16() {
                200 => return Ok(Some(answer.into_body())),
                404 if is_hub => return Ok(None),
                301 | 302 | 303 | 307 | 308 => {
                    address = next(&address, answer.headers())?;
                    // And it does not come back: who led elsewhere chooses what is asked there.
                    if Origin::of(&address) != hub {
                        token = None;
                    }
                }
                status @ (401 | 403) if is_hub => {
                    return Err(format!(
                        "{} answers {status}: there is no such repository, or it needs a token (HF_TOKEN) that may read it",
                        self.endpoint
                    ));
                }
                status => return Err(format!("{} answers {status}", host(&address))),
            }
        }
        let endpoint = &self.endpoint;
        Err(format!("{endpoint} leads on more than {REDIRECTS} times"))
    }

    fn ask(&mut self, address: &Uri, token: Option<&str>) -> Result<Response<Body>, String> {
        let mut request = self.agent.get(address);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.config().timeout_recv_response(Some(self.patience));
        match request.build().call() {
            Ok(answer) => {
                self.patience = STALL;
                Ok(answer)
            }
            Err(Error::Timeout(_)) => Err(format!(
                "{} did not answer within {} s",
                host(address),
                self.patience.as_secs()
            )),
            // Neither the address nor the token is in it.
            Err(error) => Err(format!("{}: {error}", host(address))),
        }
    }
}

/// Who an answer comes from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
}

impl Origin {
    fn of(address: &Uri) -> Self {
        let usual = match address.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        Self {
            scheme: address.scheme().cloned(),
            host: address.host().map(str::to_ascii_lowercase),
            port: address.port_u16().or(usual),
        }
    }
}

/// An address without what may be secret in it.
fn host(address: &Uri) -> String {
    let scheme = address.scheme_str().unwrap_or_default();
    let port = address.port_u16().map(|port| format!(":{port}"));
    let host = address.host().unwrap_or_default();
    format!("{scheme}://{host}{}", port.unwrap_or_default())
}

fn parse(text: &str) -> Option<Uri> {
    let address: Uri = text.parse().ok()?;
    matches!(address.scheme_str(), Some("http" | "https")).then_some(address)
}

/// Where an answer leads.
fn next(from: &Uri, headers: &HeaderMap) -> Result<Uri, String> {
    let location = headers.get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| parse(&absolute(from, location)));
    let Some(to) = to else {
        return Err(format!("{} leads nowhere", host(from)));
    };
    if from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS) {
        return Err(format!("{} leads away from https", host(from)));
    }
    Ok(to)
}

/// A location as an address of its own, as far as servers use relative ones.
fn absolute(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", |authority| authority.as_str());
    if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_from_where_it_stands() {
        let from: Uri = "https://hub.example:8443/a/b/resolve/main/config.json?x=1"
            .parse()
            .unwrap();
        for (location, expected) in [
            ("https://cdn.example/f?sig=1", "https://cdn.example/f?sig=1"),
            ("//cdn.example/f", "https://cdn.example/f"),
            (
                "/api/f?u=http://x/",
                "https://hub.example:8443/api/f?u=http://x/",
            ),
            (
                "other.json",
                "https://hub.example:8443/a/b/resolve/main/other.json",
            ),
        ] {
            assert_eq!(absolute(&from, location), expected);
        }
        for odd in ["ftp://x/y", "file:///etc/passwd", "https://", "http:// /"] {
            assert_eq!(parse(&absolute(&from, odd)), None, "{odd}");
        }
    }

    #[test]
    fn nothing_leads_from_https_to_http() {
        let from: Uri = "https://hub.example/a".parse().unwrap();
        let leads = |to: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, to.parse().unwrap());
            next(&from, &headers).map(|to| to.to_string())
        };
        assert_eq!(
            leads("https://cdn.example/f"),
            Ok("https://cdn.example/f".into())
        );
        for plain in ["http://cdn.example/f", "http://hub.example/a"] {
            let error = leads(plain).unwrap_err();
            assert_eq!(error, "https://hub.example leads away from https");
        }
        assert_eq!(
            next(&from, &HeaderMap::new()).unwrap_err(),
            "https://hub.example leads nowhere"
        );
    }

    #[test]
    fn one_origin_has_one_scheme_one_host_and_one_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        let hub = origin("https://hub.example/a");
        assert_eq!(hub, origin("https://HUB.example:443/b"));
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://a.hub.example/",
            "https://hub.example.evil/",
        ] {
            assert_ne!(hub, origin(other));
        }
    }
}
