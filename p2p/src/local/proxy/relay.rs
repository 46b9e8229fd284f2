//! Requests with a whole URL: what is shared comes as from the mirror, all else is handed on as it is.

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
            TRANSFER_ENCODING, UPGRADE, VIA,
        },
        uri::Scheme,
    },
    response::Response,
};
use registry::Relayed;

use super::{Action, Proxy, rules::Asked};
use crate::local::{
    handlers::refuse,
    mirror::{self, Wanted},
};

/// What is between two neighbours, not between both ends.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

pub(super) async fn answer(proxy: &Proxy, request: Request) -> Response {
    if has_been(&proxy.name, request.headers()) {
        return refuse(StatusCode::LOOP_DETECTED, "this has been through this proxy before");
    }
    let uri = request.uri();
    let Some((scheme, host)) = uri.scheme().zip(uri.host()) else {
        return refuse(StatusCode::BAD_REQUEST, "this is a proxy: it wants CONNECT, or a whole http URL");
    };
    if *scheme != Scheme::HTTP {
        return refuse(StatusCode::BAD_REQUEST, format!("{scheme} goes through CONNECT"));
    }
    if climbs(uri.path()) {
        return refuse(StatusCode::BAD_REQUEST, "no path of a URL has . or .. in it, or a backslash");
    }
    let action = proxy.rules.decide(&Asked::http(host, uri.port_u16(), uri.path()));
    if action == Some(Action::Deny) {
        return refuse(StatusCode::FORBIDDEN, format!("a rule denies http://{host}{}", uri.path()));
    }
    let (mut head, body) = request.into_parts();
    strip(&mut head.headers);
    head.headers.append(VIA, via(&proxy.name));
    if action != Some(Action::Direct)
        && body.is_end_stream()
        && let Some(wanted) = of_registry(proxy, &head.method, &head.uri)
    {
        return mirror::answer(&proxy.local, head.method, &wanted, &head.headers).await;
    }
    let Ok(place) = proxy.relays.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests are handed on");
    };
    // The client names the host itself, and waits for no leave to send a body.
    for name in [HOST, EXPECT] {
        head.headers.remove(name);
    }
    let body = (!body.is_end_stream()).then(|| body.into_data_stream());
    let sent = proxy.forward.send(head.method, &head.uri.to_string(), head.headers, body).await;
    match sent {
        Ok(Relayed { status, mut headers, body }) => {
            strip(&mut headers);
            headers.append(VIA, via(&proxy.name));
            let mut response: Response<Body> = Response::new(mirror::held(body, None, place));
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            response
        }
        Err(error) => mirror::failed(&error),
    }
}

/// The content of a registry that is asked for, if the mirror would ask for it at that very URL: what a caller calls plain
/// HTTP must not become the word of a registry that is known to be behind TLS.
fn of_registry(proxy: &Proxy, method: &Method, uri: &Uri) -> Option<Wanted> {
    if !matches!(*method, Method::GET | Method::HEAD) || uri.query().is_some() {
        return None;
    }
    let authority = uri.authority()?.as_str();
    let host = authority.strip_suffix(":80").unwrap_or(authority);
    let wanted = Wanted::parse(uri.path().strip_prefix("/v2/")?, Some(host))?;
    let finds = proxy.local.client.finds_at(&uri.to_string(), wanted.repository(), &wanted.thing());
    finds.then_some(wanted)
}

/// Whether a path is another one to who resolves its dots, and so might slip past a rule.
fn climbs(path: &str) -> bool {
    let mut parts = path.split('/').map(|part| part.to_ascii_lowercase().replace("%2e", "."));
    path.contains('\\') || parts.any(|part| part == "." || part == "..")
}

/// Removes what is meant for this proxy alone, also what `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn via(name: &str) -> HeaderValue {
    HeaderValue::try_from(format!("1.1 {name}")).expect("letters and digits are a header value")
}

/// Whether `name` is among those that have handed a request on.
fn has_been(name: &str, headers: &HeaderMap) -> bool {
    let values = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|by| by.split_whitespace().nth(1) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_between_neighbours_stays_there() {
        let mut heard = headers(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("authorization", "Basic eA=="),
            ("content-length", "5"),
        ]);
        strip(&mut heard);
        let mut names: Vec<_> = heard.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length"]);
    }

    #[test]
    fn a_path_that_climbs_is_known_however_it_is_written() {
        for path in ["/a/../b", "/.", "/a/%2e%2E", "/.%2e/b", "/a\\b"] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/", "/a.b/..c/...", "/a%2fb"] {
            assert!(!climbs(path), "{path}");
        }
    }

    #[test]
    fn a_proxy_finds_itself_among_those_before_it() {
        let has_been = |via| has_been("shoal-1", &headers(&[("via", via)]));
        assert!(has_been("1.1 shoal-1") && has_been("1.0 a, 1.1 shoal-1 (x), 1.1 b"));
        assert!(!has_been("1.1 shoal-12") && !has_been("1.1 a") && !has_been("shoal-1"));
    }
}
