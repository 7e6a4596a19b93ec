//! Bytes that no client would send: the decoders of v1 refuse them, and none panics.

use super::published::{CryptoConfig, seal, session_public_key};
use data_encoding::BASE64;
use ennote_devcloud::v1::blob::{self, BadBlob, KemKey};
use ennote_devcloud::v1::session::SessionKey;

/// xorshift64*: the same corpus each time.
struct Corpus(u64);

impl Corpus {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn key_and_blob() -> (KemKey, Vec<u8>) {
    let key = KemKey::of("devcloud-1", &[7; 64]);
    let config = CryptoConfig {
        algorithm: "ML-KEM-1024".into(),
        public_key: key.public(),
        key_version: key.version().to_owned(),
    };
    let blob = seal(&config, b"payload", &[1; 32], &[2; 12]);
    (key, blob)
}

#[test]
fn a_cut_or_altered_blob_is_refused() {
    let (key, blob) = key_and_blob();
    assert_eq!(blob::open(&key, &blob).unwrap().as_slice(), b"payload");
    for length in 0..blob.len() {
        assert!(blob::open(&key, &blob[..length]).is_err(), "{length} bytes");
    }
    assert!(blob::open(&key, &[&blob[..], b"x"].concat()).is_err());
    let mut corpus = Corpus(1);
    let header = 1 + 4 + key.version().len();
    // Every bit of what is parsed, and a sample of what is only decrypted.
    let parsed = (0..header).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    let sample: Vec<(usize, usize)> = (0..100).map(|_| (corpus.below(blob.len()), corpus.below(8))).collect();
    for (at, bit) in parsed.chain(sample) {
        let mut altered = blob.clone();
        altered[at] ^= 1 << bit;
        assert!(blob::open(&key, &altered).is_err(), "byte {at}, bit {bit}");
    }
}

#[test]
fn random_bytes_are_refused() {
    let (key, blob) = key_and_blob();
    let header = &blob[..1 + 4 + key.version().len()];
    let mut corpus = Corpus(2);
    for _ in 0..2000 {
        let length = corpus.below(80);
        assert!(blob::open(&key, &corpus.bytes(length)).is_err());
        let length = corpus.below(2000);
        assert!(blob::open(&key, &[&[2, 0, 0, 0], &corpus.bytes(length)[..]].concat()).is_err());
        assert!(SessionKey::parse(&BASE64.encode(&corpus.bytes(44))).is_err());
        assert!(SessionKey::parse(&String::from_utf8_lossy(&corpus.bytes(60))).is_err());
    }
    for _ in 0..50 {
        let length = corpus.below(3000);
        assert!(blob::open(&key, &[header, &corpus.bytes(length)].concat()).is_err());
    }
    assert_eq!(blob::open(&key, &vec![2; blob::MAX_BLOB + 1]).err(), Some(BadBlob::TooLarge(blob::MAX_BLOB + 1)));
    assert_eq!(blob::open(&key, &[2, 0, 0, 0, 65]).err(), Some(BadBlob::KeyVersionLength(65)));
    assert_eq!(blob::open(&key, &[2, 0xff, 0xff, 0xff, 0xff]).err(), Some(BadBlob::KeyVersionLength(u32::MAX)));
}

#[test]
fn a_session_key_is_exactly_one_subject_public_key_info() {
    let text = session_public_key(&[9; 32]);
    assert!(SessionKey::parse(&text).is_ok());
    let der = BASE64.decode(text.as_bytes()).unwrap();
    for length in 0..der.len() {
        assert!(SessionKey::parse(&BASE64.encode(&der[..length])).is_err(), "{length} bytes");
    }
    assert!(SessionKey::parse(&BASE64.encode(&[&der[..], &[0]].concat())).is_err());
    for at in 0..12 {
        let mut altered = der.clone();
        altered[at] ^= 1;
        assert!(SessionKey::parse(&BASE64.encode(&altered)).is_err(), "byte {at}");
    }
    for other in [text.trim_end_matches('=').to_owned(), format!("{text}\n"), text.replace('M', "-")] {
        assert!(SessionKey::parse(&other).is_err());
    }
}
