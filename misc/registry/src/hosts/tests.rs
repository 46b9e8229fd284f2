use std::time::Duration;

use super::*;

struct Dirs(tempfile::TempDir);

impl Dirs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, dir: &str, file: &str, text: &str) -> &Self {
        let dir = self.0.path().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(file), text).unwrap();
        self
    }

    fn load(&self, registry: &str) -> Vec<Host> {
        load(&[self.0.path().into()], registry, &OriginOptions::default()).unwrap()
    }

    fn urls(&self, registry: &str) -> Vec<String> {
        self.load(registry).into_iter().map(|host| host.base.to_string()).collect()
    }
}

#[test]
fn a_registry_without_a_file_is_reached_by_https_and_on_loopback_by_http() {
    let dirs = Dirs::new();
    assert_eq!(dirs.urls("docker.io"), ["https://registry-1.docker.io/v2/"]);
    assert_eq!(dirs.urls("example.com:5000"), ["https://example.com:5000/v2/"]);
    for plain in ["localhost:5000", "127.0.0.1:5000", "127.8.8.8:80", "[::1]:5000"] {
        assert_eq!(
            dirs.urls(plain),
            [if plain.ends_with(":80") {
                "http://127.8.8.8/v2/".to_owned()
            } else {
                format!("http://{plain}/v2/")
            }]
        );
    }
    assert_eq!(dirs.urls("localhost"), ["https://localhost/v2/"]);
    assert!(dirs.load("localhost")[0].tls.skip_verify);
}

#[test]
fn hosts_are_tried_as_listed_and_the_server_last() {
    let dirs = Dirs::new();
    dirs.write(
        "example.com",
        "hosts.toml",
        r#"
        server = "https://origin.example.com"
        [host."https://z.example.com"]
        [host."http://a.example.com:81/cache"]
        [host."m.example.com/v2/"]
        "#,
    );
    let expected = [
        "https://z.example.com/v2/",
        "http://a.example.com:81/cache/v2/",
        "https://m.example.com/v2/",
        "https://origin.example.com/v2/",
    ];
    assert_eq!(dirs.urls("example.com"), expected);
    let hosts = dirs.load("example.com");
    assert!(hosts.iter().all(|host| host.namespace.as_deref() == Some("example.com")));
    assert_eq!(hosts.iter().map(|host| host.is_origin).collect::<Vec<_>>(), [false, false, false, true]);
}

#[test]
fn without_server_the_registry_itself_is_last_and_gets_no_namespace() {
    let dirs = Dirs::new();
    dirs.write("docker.io", "hosts.toml", "[host.\"https://mirror.example.com\"]\ncapabilities = [\"pull\"]");
    let hosts = dirs.load("docker.io");
    assert_eq!(hosts[0].namespace.as_deref(), Some("docker.io"));
    assert!(hosts[0].may(Capability::Pull) && !hosts[0].may(Capability::Resolve));
    assert_eq!(hosts[1].base.as_str(), "https://registry-1.docker.io/v2/");
    assert_eq!(hosts[1].namespace, None);
    assert!(hosts[1].is_origin && hosts[1].may(Capability::Push));
}

#[test]
fn the_directory_is_host_port_with_underscores_then_with_colon_then_default() {
    let dirs = Dirs::new();
    dirs.write("_default", "hosts.toml", "server = \"https://default\"");
    assert_eq!(dirs.urls("example.com:5000"), ["https://default/v2/"]);
    dirs.write("example.com:5000", "hosts.toml", "server = \"https://colon\"");
    assert_eq!(dirs.urls("example.com:5000"), ["https://colon/v2/"]);
    dirs.write("example.com_5000_", "hosts.toml", "server = \"https://underscore\"");
    assert_eq!(dirs.urls("example.com:5000"), ["https://underscore/v2/"]);
}

#[test]
fn every_key_of_a_host_is_read() {
    let dirs = Dirs::new();
    dirs.write("r", "ca.pem", "CA1")
        .write("r", "two.pem", "CA2")
        .write("r", "c.pem", "CERT")
        .write("r", "k", "KEY");
    dirs.write(
        "r",
        "hosts.toml",
        r#"
        skip_verify = true
        [host."https://m/exact"]
        capabilities = ["Pull", "resolve", "push"]
        ca = ["ca.pem", "two.pem"]
        client = [["c.pem", "k"]]
        skip_verify = true
        override_path = true
        dial_timeout = "3s"
        [host."https://m/exact".header]
        x-one = "1"
        x-two = ["2", "3"]
        [host."https://n"]
        ca = "ca.pem"
        client = "c.pem"
        "#,
    );
    let hosts = dirs.load("r");
    let [exact, other, own] = &hosts[..] else { panic!("{hosts:?}") };
    assert_eq!(exact.base.as_str(), "https://m/exact/");
    assert_eq!(exact.tls.ca, [b"CA1".to_vec(), b"CA2".to_vec()]);
    assert_eq!(exact.tls.client.as_deref(), Some(&b"CERT\nKEY"[..]));
    assert!(exact.tls.skip_verify && own.tls.skip_verify && !other.tls.skip_verify);
    assert_eq!(exact.tls.dial_timeout, Some(Duration::from_secs(3)));
    assert_eq!(exact.headers.get_all("x-two").iter().count(), 2);
    assert_eq!((other.tls.ca.len(), other.tls.client.as_deref()), (1, Some(&b"CERT"[..])));
}

#[test]
fn docker_certificate_files_configure_tls_where_no_hosts_toml_is() {
    let dirs = Dirs::new();
    dirs.write("r.io", "a.crt", "CA").write("r.io", "me.cert", "C").write("r.io", "me.key", "K");
    let hosts = dirs.load("r.io");
    assert_eq!(hosts[0].base.as_str(), "https://r.io/v2/");
    assert_eq!(hosts[0].tls.ca, [b"CA".to_vec()]);
    assert_eq!(hosts[0].tls.client.as_deref(), Some(&b"C\nK"[..]));
    dirs.write("127.0.0.1:5000", "a.crt", "CA");
    assert_eq!(dirs.urls("127.0.0.1:5000"), ["https://127.0.0.1:5000/v2/"]);
}

#[test]
fn a_broken_file_leaves_the_registry_itself_and_a_missing_certificate_is_an_error() {
    let dirs = Dirs::new();
    dirs.write("r.io", "hosts.toml", "server = ");
    assert_eq!(dirs.urls("r.io"), ["https://r.io/v2/"]);
    dirs.write("t.io", "hosts.toml", "[host.\"ftp://t.io\"]");
    assert_eq!(dirs.urls("t.io"), ["https://t.io/v2/"]);
    dirs.write("u.io", "hosts.toml", "[host.\"https://u\"]\ncapabilities = [\"pull\", \"referrers\"]");
    assert_eq!(
        dirs.load("u.io")[0].capabilities,
        [Capability::Pull],
        "what newer containerds know is no error"
    );
    dirs.write("s.io", "hosts.toml", "ca = \"nowhere.pem\"");
    let error = load(&[dirs.0.path().into()], "s.io", &OriginOptions::default()).unwrap_err().to_string();
    assert!(error.contains("s.io") && error.contains("nowhere.pem"), "{error}");
}

#[test]
fn what_the_caller_knows_of_a_registry_goes_to_itself_and_to_no_mirror() {
    let dirs = Dirs::new();
    dirs.write("files", "own.pem", "OWN");
    let ca = vec![dirs.0.path().join("files/own.pem")];
    let origin = OriginOptions { scheme: Some(Scheme::Http), skip_verify: true, ca };
    let load = |registry| load(&[dirs.0.path().into()], registry, &origin).unwrap();
    let [own] = &load("r.io")[..] else { panic!("one host") };
    assert_eq!(own.base.as_str(), "http://r.io/v2/");
    assert!(own.tls.skip_verify && own.tls.ca == [b"OWN".to_vec()]);

    dirs.write("m.io", "hosts.toml", "server = \"https://m.io\"\n[host.\"https://mirror\"]");
    let [mirror, own] = &load("m.io")[..] else { panic!("two hosts") };
    assert!(!mirror.tls.skip_verify && mirror.tls.ca.is_empty());
    assert_eq!(own.base.as_str(), "https://m.io/v2/", "hosts.toml names the address");
    assert!(own.tls.skip_verify && own.tls.ca.len() == 1);

    let missing = OriginOptions { ca: vec!["/nowhere.pem".into()], ..OriginOptions::default() };
    let error = super::load(&[], "r.io", &missing).unwrap_err().to_string();
    assert!(error.contains("r.io") && error.contains("/nowhere.pem"), "{error}");
    let secure = OriginOptions { scheme: Some(Scheme::Https), ..OriginOptions::default() };
    assert_eq!(super::load(&[], "127.0.0.1:5000", &secure).unwrap()[0].base.scheme(), "https");
}
