//! The proof of the token: what holds, and every attack that it is made to stop.
#![expect(clippy::unwrap_used, reason = "test code")]

use exposer_common::proto::auth::{
    AuthError, MAX_TOKEN, Token, TokenError, Transcript, accept_version, fresh_nonce, negotiate,
};
use exposer_common::proto::codec::encode;
use exposer_common::proto::error::VersionError;
use exposer_common::proto::message::{AgentMessage, Challenge, EdgeMessage, Hello};
use exposer_common::proto::{MAX_VERSION, MIN_VERSION};

const TEXT: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn token() -> Token {
    Token::from_bytes(TEXT.as_bytes()).unwrap()
}

fn hello(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = Hello {
        min_version: 1,
        max_version: 2,
        agent: "home".into(),
        nonce: [1; 32],
        software: "agent".into(),
        capabilities: vec!["tls".into()],
    };
    change(&mut hello);
    encode(&AgentMessage::Hello(hello)).unwrap()
}

fn challenge(change: impl FnOnce(&mut Challenge)) -> Vec<u8> {
    let mut challenge = Challenge {
        version: 2,
        nonce: [2; 32],
    };
    change(&mut challenge);
    encode(&EdgeMessage::Challenge(challenge)).unwrap()
}

fn transcript() -> Transcript {
    Transcript::new(&hello(|_| {}), &challenge(|_| {}))
}

#[test]
fn both_sides_prove_the_same_token() {
    let agent = token().prove_agent(&transcript());
    token().verify_agent(&transcript(), &agent).unwrap();
    let edge = token().prove_edge(&transcript(), &agent);
    token().verify_edge(&transcript(), &agent, &edge).unwrap();
}

#[test]
fn another_token_proves_nothing() {
    let other = Token::from_bytes(&TEXT.as_bytes()[1..]).unwrap();
    let agent = other.prove_agent(&transcript());
    assert_eq!(
        token().verify_agent(&transcript(), &agent),
        Err(AuthError::WrongProof)
    );
    let edge = other.prove_edge(&transcript(), &agent);
    assert_eq!(
        token().verify_edge(&transcript(), &agent, &edge),
        Err(AuthError::WrongProof)
    );
}

/// Who sends the agent's proof back to it, or the edge's to the edge, has proven nothing.
#[test]
fn reflection() {
    let agent = token().prove_agent(&transcript());
    assert_eq!(
        token().verify_edge(&transcript(), &agent, &agent),
        Err(AuthError::WrongProof)
    );
    let edge = token().prove_edge(&transcript(), &agent);
    assert_eq!(
        token().verify_agent(&transcript(), &edge),
        Err(AuthError::WrongProof)
    );
}

/// Proofs of an earlier conversation do not fit one with another nonce on either side.
#[test]
fn replay() {
    let agent = token().prove_agent(&transcript());
    let edge = token().prove_edge(&transcript(), &agent);
    let fresh_edge = Transcript::new(&hello(|_| {}), &challenge(|challenge| challenge.nonce = [3; 32]));
    assert_eq!(
        token().verify_agent(&fresh_edge, &agent),
        Err(AuthError::WrongProof)
    );
    let fresh_agent = Transcript::new(&hello(|hello| hello.nonce = [4; 32]), &challenge(|_| {}));
    assert_eq!(
        token().verify_edge(&fresh_agent, &agent, &edge),
        Err(AuthError::WrongProof)
    );
}

/// Whoever lowers the versions, drops a capability or changes the name on the way is found out by both.
#[test]
fn downgrade() {
    let honest = transcript();
    let agent = token().prove_agent(&honest);
    let edge = token().prove_edge(&honest, &agent);
    let tampered = [
        Transcript::new(&hello(|hello| hello.max_version = 1), &challenge(|_| {})),
        Transcript::new(&hello(|hello| hello.min_version = 0), &challenge(|_| {})),
        Transcript::new(&hello(|hello| hello.capabilities.clear()), &challenge(|_| {})),
        Transcript::new(&hello(|hello| hello.agent = "other".into()), &challenge(|_| {})),
        Transcript::new(&hello(|hello| hello.software = "old".into()), &challenge(|_| {})),
        Transcript::new(&hello(|_| {}), &challenge(|challenge| challenge.version = 1)),
    ];
    for seen in tampered {
        assert_eq!(token().verify_agent(&seen, &agent), Err(AuthError::WrongProof));
        assert_eq!(
            token().verify_edge(&seen, &agent, &edge),
            Err(AuthError::WrongProof)
        );
    }
}

/// The edge's proof answers this proof of the agent and no other.
#[test]
fn the_edges_proof_is_bound_to_the_agents() {
    let agent = token().prove_agent(&transcript());
    let edge = token().prove_edge(&transcript(), &agent);
    let mut other = agent;
    other[31] ^= 1;
    assert_eq!(
        token().verify_edge(&transcript(), &other, &edge),
        Err(AuthError::WrongProof)
    );
}

/// Every single bit of a proof counts.
#[test]
fn each_bit_counts() {
    let good = token().prove_agent(&transcript());
    for bit in 0..256 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            token().verify_agent(&transcript(), &bad),
            Err(AuthError::WrongProof),
            "bit {bit}"
        );
    }
}

/// The border between the two frames is part of what is signed.
#[test]
fn frames_can_not_lend_bytes_to_each_other() {
    assert_ne!(Transcript::new(b"ab", b"c"), Transcript::new(b"a", b"bc"));
    assert_ne!(Transcript::new(b"", b"abc"), Transcript::new(b"abc", b""));
}

#[test]
fn tokens_as_files_hold_them() {
    let plain = token().prove_agent(&transcript());
    for text in [
        format!("{TEXT}\n"),
        format!("  {TEXT}\r\n"),
        format!("\t{TEXT} \n\n"),
    ] {
        assert_eq!(
            Token::from_bytes(text.as_bytes())
                .unwrap()
                .prove_agent(&transcript()),
            plain
        );
    }
    let longest: String = TEXT.chars().cycle().take(MAX_TOKEN).collect();
    Token::from_bytes(longest.as_bytes()).unwrap();
    Token::from_bytes(&TEXT.as_bytes()[..32]).unwrap();
}

#[test]
fn texts_that_are_no_token_and_never_repeated() {
    let cases: [(&[u8], TokenError); 8] = [
        (b"", TokenError::Empty),
        (b" \n\t ", TokenError::Empty),
        (b"S3cret-but-too-short", TokenError::TooShort(20)),
        (&TEXT.as_bytes()[..31], TokenError::TooShort(31)),
        (&[b'a'; 64], TokenError::TooPlain(1)),
        (b"0123456789abcdef 0123456789abcdef", TokenError::NotText),
        (b"0123456789abcdef\x000123456789abcdef", TokenError::NotText),
        (
            "pässwörter-sind-hier-nicht-erlaubt-x".as_bytes(),
            TokenError::NotText,
        ),
    ];
    for (text, expected) in cases {
        let error = Token::from_bytes(text).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().contains("S3cret"), "{error}");
    }
    assert_eq!(
        Token::from_bytes(&[b'x'; MAX_TOKEN + 1]).unwrap_err(),
        TokenError::TooLong
    );
}

#[test]
fn debug_does_not_show_the_token() {
    assert_eq!(format!("{:?}", token()), "Token(not shown)");
}

#[test]
fn nonces_differ() {
    assert_ne!(fresh_nonce().unwrap(), fresh_nonce().unwrap());
}

#[test]
fn versions() {
    assert_eq!(negotiate(MIN_VERSION, MAX_VERSION), Ok(MAX_VERSION));
    assert_eq!(
        negotiate(0, u16::MAX),
        Ok(MAX_VERSION),
        "a newer peer speaks ours too"
    );
    assert_eq!(
        negotiate(0, MIN_VERSION),
        Ok(MIN_VERSION),
        "an older peer gets its newest"
    );
    assert_eq!(
        negotiate(MAX_VERSION + 1, u16::MAX),
        Err(VersionError::NoCommon {
            min: MAX_VERSION + 1,
            max: u16::MAX
        })
    );
    assert_eq!(
        negotiate(0, MIN_VERSION - 1),
        Err(VersionError::NoCommon {
            min: 0,
            max: MIN_VERSION - 1
        })
    );
    assert_eq!(negotiate(2, 1), Err(VersionError::Reversed { min: 2, max: 1 }));
    for version in MIN_VERSION..=MAX_VERSION {
        accept_version(version).unwrap();
    }
    assert_eq!(
        accept_version(MAX_VERSION + 1),
        Err(VersionError::NotOffered(MAX_VERSION + 1))
    );
    assert_eq!(
        accept_version(MIN_VERSION - 1),
        Err(VersionError::NotOffered(MIN_VERSION - 1))
    );
}
