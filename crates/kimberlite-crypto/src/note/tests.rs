use proptest::prelude::*;

use super::*;

const ORIGIN: &str = "clinic-7/0123456789abcdef/0";

fn signer() -> Signer {
    Signer::from_seed([7; 32])
}

fn key() -> VerifierKey {
    signer().verifier_key(ORIGIN).unwrap()
}

fn body() -> CheckpointBody {
    CheckpointBody {
        origin: ORIGIN.to_owned(),
        size: 20_852_163,
        root: RootHash::new([0; 32]),
        chain: ChainHash::new([0xff; 32]),
        time: Timestamp::from_nanoseconds(1_700_000_000_000_000_001),
    }
}

fn read(note: &str) -> Result<CheckpointBody, NoteError> {
    SignedCheckpoint::parse(note)?.verify(&key())
}

/// A note of any text, signed as it stands.
fn sign(text: &str) -> String {
    let mut signed = key().key_id().to_vec();
    signed.extend(signer().sign(text.as_bytes()));
    format!("{text}\n— {ORIGIN} {}\n", BASE64.encode(signed))
}

#[test]
fn the_text_is_as_documented() {
    let note = body().sign(&signer()).unwrap();
    let text = "clinic-7/0123456789abcdef/0\n\
                20852163\n\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
                kimberlite/v1/chain //////////////////////////////////////////8=\n\
                kimberlite/v1/time 1700000000000000001\n";
    assert_eq!(note, sign(text));
    assert_eq!(read(&note), Ok(body()));
}

#[test]
fn every_change_of_a_byte_is_found() {
    let note = body().sign(&signer()).unwrap();
    for at in 0..note.len() {
        for mask in [0x01, 0x02, 0x20, 0x80, 0xff] {
            let mut changed = note.clone().into_bytes();
            *changed.get_mut(at).unwrap() ^= mask;
            let read = String::from_utf8(changed).map(|changed| read(&changed));
            assert!(!matches!(read, Ok(Ok(_))), "byte {at}");
        }
    }
    for end in (0..note.len()).filter(|end| note.is_char_boundary(*end)) {
        assert!(read(note.get(..end).unwrap()).is_err(), "{end} bytes");
    }
    assert!(read(&format!("{note}\n")).is_err());
}

#[test]
fn another_key_name_or_origin_does_not_verify() {
    let note = body().sign(&signer()).unwrap();
    let verify = |key: VerifierKey| SignedCheckpoint::parse(&note).unwrap().verify(&key);
    let other_key = Signer::from_seed([8; 32]).verifier_key(ORIGIN).unwrap();
    assert_eq!(verify(other_key), Err(NoteError::NotSigned));
    let other_name = signer().verifier_key("clinic-8").unwrap();
    assert_eq!(verify(other_name), Err(NoteError::NotSigned));
    // Signed by the right key under the right name, about another log.
    let text = body().text().replacen(ORIGIN, "clinic-8", 1);
    assert_eq!(read(&sign(&text)), Err(NoteError::OtherOrigin));
}

#[test]
fn signatures_by_other_keys_are_passed_over_and_a_wrong_one_by_the_key_is_not() {
    let note = body().sign(&signer()).unwrap();
    let witness = format!("{note}— witness.example/w {}\n", BASE64.encode([9; 72]));
    assert_eq!(read(&witness), Ok(body()));
    let mut wrong = key().key_id().to_vec();
    wrong.extend([9; SIGNATURE_BYTES]);
    let wrong = format!("{note}— {ORIGIN} {}\n", BASE64.encode(wrong));
    assert_eq!(read(&wrong), Err(NoteError::Signature));
}

#[test]
fn unknown_extension_lines_are_passed_over() {
    let text = format!("{}something else\n", body().text());
    assert_eq!(read(&sign(&text)), Ok(body()));
}

#[test]
fn malformed_lines_are_refused_although_they_are_signed() {
    let refused = |from: &str, to: &str, line| {
        let text = body().text().replacen(from, to, 1);
        assert_ne!(text, body().text());
        assert_eq!(read(&sign(&text)), Err(NoteError::Line { line }), "{text}");
    };
    refused("\n20852163\n", "\n020852163\n", "size");
    refused("\n20852163\n", "\n+20852163\n", "size");
    refused("\n20852163\n", "\n18446744073709551616\n", "size");
    refused("AAAA", "", "root");
    refused("AAA=", "AAB=", "root");
    refused("AAA=", "AAA", "root");
    refused("kimberlite/v1/chain ", "kimberlite/v2/chain ", "chain hash");
    refused(
        "kimberlite/v1/chain ",
        "kimberlite/v1/chain  ",
        "chain hash",
    );
    refused("kimberlite/v1/time ", "kimberlite/v2/time ", "time");
    refused("kimberlite/v1/time 1", "kimberlite/v1/time 01", "time");
    let twice = format!("{}kimberlite/v1/time 5\n", body().text());
    assert_eq!(read(&sign(&twice)), Err(NoteError::Line { line: "time" }));
    let tab = body().text().replace("v1/time ", "v1/time\t");
    assert_eq!(read(&sign(&tab)), Err(NoteError::Line { line: "text" }));
}

#[test]
fn everything_is_bounded() {
    let note = body().sign(&signer()).unwrap();
    let long = format!("{}{}\n", body().text(), "x".repeat(NOTE_BYTES_MAX));
    let bytes = sign(&long).len();
    assert_eq!(read(&sign(&long)), Err(NoteError::TooLong { bytes }));
    let lines = |count| sign(&format!("{}{}", body().text(), "x\n".repeat(count)));
    assert_eq!(read(&lines(EXTENSION_LINES_MAX - 2)), Ok(body()));
    let line = "extension line";
    assert_eq!(
        read(&lines(EXTENSION_LINES_MAX - 1)),
        Err(NoteError::Line { line })
    );
    let witness = format!("— w {}\n", BASE64.encode([9; 72]));
    let signed = |count| format!("{note}{}", witness.repeat(count));
    assert_eq!(read(&signed(SIGNATURES_MAX - 1)), Ok(body()));
    let line = "signature";
    assert_eq!(read(&signed(SIGNATURES_MAX)), Err(NoteError::Line { line }));
}

#[test]
fn an_origin_that_cannot_stand_in_a_note_is_not_signed() {
    for origin in ["", "a b", "a\nb", "a+b"] {
        let body = CheckpointBody {
            origin: origin.to_owned(),
            ..body()
        };
        assert_eq!(body.sign(&signer()), Err(NoteError::Origin));
    }
}

proptest! {
    #[test]
    fn checkpoints_round_trip(size: u64, root: [u8; 32], chain: [u8; 32], time: u64) {
        let body = CheckpointBody {
            origin: ORIGIN.to_owned(),
            size,
            root: RootHash::new(root),
            chain: ChainHash::new(chain),
            time: Timestamp::from_nanoseconds(time),
        };
        prop_assert_eq!(read(&body.sign(&signer()).unwrap()), Ok(body));
    }

    #[test]
    fn arbitrary_text_never_panics(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("\n".to_owned()),
                Just("\n\n— ".to_owned()),
                Just(format!("{ORIGIN} ")),
                Just("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_owned()),
                Just("kimberlite/v1/chain ".to_owned()),
                Just("kimberlite/v1/time ".to_owned()),
                "[0-9]{1,21}\n",
                ".{0,20}",
            ],
            0..12,
        )
    ) {
        let _ = read(&pieces.concat());
    }
}
