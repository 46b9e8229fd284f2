//! Addresses that nobody outside may make a process talk to: those of the link, and those at which clouds tell a machine
//! its secrets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Services for machines of a cloud that are not at a link-local address.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an address is one of those.
pub(crate) fn is_forbidden(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let of_the_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    of_the_link || METADATA.contains(&ip)
}

/// Whether a URL names such an address; names are looked at by [`Guarded`].
pub(crate) fn names_forbidden(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(is_forbidden)
}

/// The addresses of a host, those that may be talked to where `guarded`. What is talked to is one of them, never what the
/// name leads to when it is asked for again.
pub(crate) async fn addresses(host: &str, port: u16, guarded: bool) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let allowed: Vec<SocketAddr> = found.filter(|at| !guarded || !is_forbidden(at.ip())).collect();
    if allowed.is_empty() {
        let problem = format!("{host} is at no address that may be asked");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(allowed)
}

/// Finds the addresses of names, without those that are forbidden.
#[derive(Debug)]
pub(crate) struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let allowed = addresses(name.as_str(), 0, true).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link_and_of_metadata_are_forbidden_however_they_are_written() {
        for forbidden in [
            "http://169.254.169.254/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
        ] {
            assert!(names_forbidden(&Url::parse(forbidden).unwrap()), "{forbidden}");
        }
        for allowed in ["http://127.0.0.1/", "http://10.0.0.1/", "http://[fd00::1]/", "http://example.com/"] {
            assert!(!names_forbidden(&Url::parse(allowed).unwrap()), "{allowed}");
        }
    }

    #[tokio::test]
    async fn a_guarded_client_asks_none_of_them() {
        let options = crate::ClientOptions { guarded: true, ..Default::default() };
        let client = crate::Client::new(options).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let repository = crate::Repository::parse("169.254.169.254/app").unwrap();
        let refused = client.readable_size(&repository, &digest).await.unwrap_err();
        assert!(matches!(refused, crate::RegistryError::ForbiddenAddress { .. }), "{refused}");
        let refused = client.file("http://[fe80::1]/token", None).await.err().unwrap();
        assert!(matches!(refused, crate::RegistryError::ForbiddenAddress { .. }), "{refused}");
    }
}
