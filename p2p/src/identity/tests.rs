use std::{fs, sync::Arc};

use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData, pki_types::ServerName};

use super::*;

fn node(secret: u8) -> Identity {
    Identity::ephemeral(&ClusterSecret::from_bytes([secret; 32])).unwrap()
}

/// Carries what `from` has to say to `to`; says whether there was anything.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<bool, rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let any = !bytes.is_empty();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(any)
}

/// Shakes hands: whom the dialing side found, and whom the listening side did.
fn shake(
    dialing: &Identity,
    expected: Option<NodeId>,
    listening: &Identity,
) -> Result<(NodeId, NodeId), rustls::Error> {
    let name = ServerName::try_from("member").unwrap();
    let mut client = ClientConnection::new(dialing.client_config(expected).unwrap(), name).unwrap();
    let mut server = ServerConnection::new(listening.server_config().unwrap()).unwrap();
    while carry(&mut client, &mut server)? | carry(&mut server, &mut client)? {}
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let seen = |certificates| peer_of(certificates).expect("both sides have certificates");
    Ok((seen(client.peer_certificates()), seen(server.peer_certificates())))
}

#[test]
fn members_learn_who_the_other_is() {
    let (a, b) = (node(1), node(1));
    assert_eq!(shake(&a, Some(b.id()), &b).unwrap(), (b.id(), a.id()));
    assert_eq!(shake(&a, None, &b).unwrap(), (b.id(), a.id()));
}

#[test]
fn a_stranger_is_refused_on_either_side() {
    let (member, stranger) = (node(1), node(2));
    for (dialing, listening) in [(&member, &stranger), (&stranger, &member)] {
        let error = shake(dialing, None, listening).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn a_member_that_is_not_the_one_dialed_is_refused() {
    let (a, b, c) = (node(1), node(1), node(1));
    let error = shake(&a, Some(c.id()), &b).unwrap_err();
    let refused = rustls::CertificateError::ApplicationVerificationFailure;
    assert_eq!(error, rustls::Error::InvalidCertificate(refused));
}

#[test]
fn a_dialer_without_certificate_gets_nothing() {
    let listening = node(1);
    let roots = Arc::unwrap_or_clone(listening.roots.clone());
    let mut config = ClientConfig::builder_with_provider(listening.provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.dangerous().set_certificate_verifier(Arc::new(MemberVerifier {
        roots: listening.roots.clone(),
        algorithms: listening.provider.signature_verification_algorithms,
        expected: None,
    }));
    let name = ServerName::try_from("member").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(listening.server_config().unwrap()).unwrap();
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let any =
            carry(&mut client, &mut server).and_then(|forth| Ok(forth | carry(&mut server, &mut client)?));
        match any {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => outcome = Err(error),
        }
    }
    assert_eq!(outcome, Err(rustls::Error::NoCertificatesPresented));
    assert!(server.is_handshaking());
}

#[test]
fn a_node_has_the_same_id_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate().unwrap();
    let first = Identity::open(dir.path(), &secret).unwrap().id();
    assert_eq!(Identity::open(dir.path(), &secret).unwrap().id(), first);
    let other = Identity::open(dir.path(), &ClusterSecret::generate().unwrap()).unwrap();
    assert_eq!(other.id(), first, "the key is the node's, whatever the cluster");
}

#[test]
fn a_damaged_key_is_an_error_and_not_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate().unwrap();
    Identity::open(dir.path(), &secret).unwrap();
    fs::write(dir.path().join("node.key"), b"short").unwrap();
    assert!(matches!(Identity::open(dir.path(), &secret), Err(IdentityError::Damaged(_))));
}

#[test]
fn a_token_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kept_token(dir.path()).unwrap().is_none());
    let token = Token::new(vec!["10.0.0.1:4100".into()], ClusterSecret::generate().unwrap()).unwrap();
    keep_token(dir.path(), &token).unwrap();
    let kept = kept_token(dir.path()).unwrap().unwrap();
    assert_eq!(kept.to_string(), token.to_string());
}

#[test]
fn an_identity_does_not_show_its_keys() {
    let shown = format!("{:?}", node(0xab));
    assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
}
