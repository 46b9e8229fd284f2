//! Messages of the piece network, generated from `proto/`. What they mean is written there.

/// What nodes tell each other.
pub mod peer {
    #![allow(missing_docs, clippy::doc_markdown, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/shoal.p2p.v1.rs"));

    pub use message::Body;

    impl From<Body> for Message {
        fn from(body: Body) -> Self {
            Self { body: Some(body) }
        }
    }
}

/// What programs of a node ask its p2pd for, by gRPC.
pub mod local {
    #![allow(
        missing_docs,
        unused_qualifications,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]

    include!(concat!(env!("OUT_DIR"), "/shoal.local.v1.rs"));
}

/// Version of the messages that this build speaks.
pub const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::peer::{Body, Have, Message};

    #[test]
    fn a_body_or_field_of_a_later_version_is_ignored() {
        // Field 1000, length-delimited: a body that this version does not know.
        let later = [0xc2, 0x3e, 2, 8, 1];
        assert_eq!(Message::decode(later.as_slice()).unwrap().body, None);

        let have = Have { task: vec![7; 32].into(), pieces: vec![1, 300] };
        let mut inner = have.encode_to_vec();
        inner.extend(later);
        let mut outer = vec![0x52, u8::try_from(inner.len()).unwrap()];
        outer.extend(inner);
        assert_eq!(Message::decode(outer.as_slice()).unwrap(), Body::Have(have).into());
    }

    #[test]
    fn a_bitmap_of_the_largest_blob_fits_a_frame_with_all_numbers_of_a_report() {
        let pieces = (0..1 << 17).collect();
        let have = Message::from(Body::Have(Have { task: vec![7; 32].into(), pieces }));
        assert!(have.encoded_len() < 1 << 20);
    }
}
