use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PASSWORD: &str = "hunter2-and-more";

fn settings(password: Option<&str>) -> LoginSettings {
    LoginSettings {
        user: "relay".to_owned(),
        database: "shop".to_owned(),
        password: password.map(|password| Secret::new(password.to_owned())),
        parameters: vec![("datestyle".to_owned(), "ISO".to_owned())],
        end_point: None,
        must_bind: false,
    }
}

/// A scripted server: it sends messages and looks at the answers.
struct Session {
    login: Login,
    out: BytesMut,
}

impl Session {
    fn begin(password: Option<&str>) -> Self {
        let mut session = Session { login: Login::new(settings(password)), out: BytesMut::new() };
        session.login.start(&mut session.out).unwrap();
        assert!(session.out.windows(20).any(|part| part == b"replication\0database"));
        session.out.clear();
        session
    }

    fn say(&mut self, tag: u8, body: &[u8]) -> Result<LoginStep, LoginError> {
        self.login.on_frame(tag, body, &mut self.out)
    }

    fn authentication(&mut self, kind: u32, data: &[u8]) -> Result<LoginStep, LoginError> {
        self.say(b'R', &[&kind.to_be_bytes(), data].concat())
    }

    /// What was answered: type byte and body of the one message.
    fn answer(&mut self) -> (u8, Vec<u8>) {
        let bytes = self.out.split().to_vec();
        let len = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), 1 + len);
        (bytes[0], bytes[5..].to_vec())
    }

    /// SCRAM up to our first message; gives our nonce.
    fn scram(&mut self) -> String {
        self.authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").unwrap();
        let (tag, body) = self.answer();
        assert_eq!(tag, b'p');
        let message = body.strip_prefix(b"SCRAM-SHA-256\0").unwrap();
        let (len, message) = message.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*len) as usize, message.len());
        let message = String::from_utf8(message.to_vec()).unwrap();
        message.strip_prefix("n,,n=,r=").unwrap().to_owned()
    }

    fn finish(mut self) {
        assert_eq!(self.authentication(0, b""), Ok(LoginStep::Continue));
        for (name, value) in [("server_version", "18.4"), ("client_encoding", "UTF8")] {
            let body = [name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat();
            assert_eq!(self.say(b'S', &body), Ok(LoginStep::Continue));
        }
        assert_eq!(self.say(b'N', b"VNOTICE\0Mhello\0\0"), Ok(LoginStep::Continue));
        assert_eq!(self.say(b'K', b"\0\0\x30\x39\0\0\0\x01"), Ok(LoginStep::Continue));
        let parameters = vec![
            ("server_version".to_owned(), "18.4".to_owned()),
            ("client_encoding".to_owned(), "UTF8".to_owned()),
        ];
        assert_eq!(self.say(b'Z', b"I"), Ok(LoginStep::Done { parameters, process_id: 12345 }));
        assert!(self.out.is_empty());
    }
}

#[test]
fn trust_asks_nothing() {
    Session::begin(None).finish();
    Session::begin(Some(PASSWORD)).finish();
}

#[test]
fn a_cleartext_password_is_sent_as_it_is() {
    let mut session = Session::begin(Some(PASSWORD));
    session.authentication(3, b"").unwrap();
    assert_eq!(session.answer(), (b'p', [PASSWORD.as_bytes(), b"\0"].concat()));
    session.finish();
}

#[test]
fn an_md5_password_is_hashed_with_the_salt() {
    let mut session = Session::begin(Some("password"));
    session.login.settings.user = "md5_user".to_owned();
    session.authentication(5, &[0x2a, 0x3d, 0x8f, 0xe0]).unwrap();
    assert_eq!(session.answer(), (b'p', b"md562af4dd09bbb41884907a838a3233294\0".to_vec()));
    session.finish();
    assert!(Session::begin(Some(PASSWORD)).authentication(5, b"abc").is_err());
}

#[test]
fn scram_sends_a_proof_for_the_servers_nonce() {
    let mut session = Session::begin(Some(PASSWORD));
    let nonce = session.scram();
    let server_first = format!("r={nonce}server,s=c2FsdHNhbHQ=,i=4096");
    session.authentication(11, server_first.as_bytes()).unwrap();
    let (tag, body) = session.answer();
    let message = String::from_utf8(body).unwrap();
    assert_eq!(tag, b'p');
    let proof = message.strip_prefix(&format!("c=biws,r={nonce}server,p=")).unwrap();
    assert_eq!(proof.len(), 44);
    // A server that does not know the password cannot sign.
    let signature = format!("v={}", "A".repeat(43) + "=");
    let failed = session.authentication(12, signature.as_bytes());
    assert!(matches!(failed, Err(LoginError::ScramFailed(_))), "{failed:?}");
}

/// What is sent in answer to the mechanisms that the server offers.
fn scram_by(
    end_point: Option<&[u8]>,
    must_bind: bool,
    offered: &[u8],
) -> Result<String, LoginError> {
    let end_point = end_point.map(<[u8]>::to_vec);
    let settings = LoginSettings { end_point, must_bind, ..settings(Some(PASSWORD)) };
    let mut session = Session { login: Login::new(settings), out: BytesMut::new() };
    session.authentication(10, offered)?;
    Ok(session.answer().1.escape_ascii().to_string())
}

#[test]
fn scram_is_bound_to_tls_where_both_can() {
    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";
    let sent = |end_point, must_bind, offered| scram_by(end_point, must_bind, offered).unwrap();
    for must_bind in [false, true] {
        let bound = sent(Some(b"hash"), must_bind, BOTH);
        assert!(bound.starts_with("SCRAM-SHA-256-PLUS\\x00"), "{bound}");
        assert!(bound.contains("p=tls-server-end-point,,n=,r="), "{bound}");
    }
    // "y" tells a server that would have offered it that somebody has changed its offer.
    let unasked = sent(Some(b"hash"), false, PLAIN);
    assert!(unasked.starts_with("SCRAM-SHA-256\\x00") && unasked.contains("y,,n=,r="), "{unasked}");
    for offered in [BOTH, PLAIN] {
        let unable = sent(None, false, offered);
        assert!(
            unable.starts_with("SCRAM-SHA-256\\x00") && unable.contains("n,,n=,r="),
            "{unable}"
        );
        let refused = scram_by(None, true, offered);
        assert!(matches!(refused, Err(LoginError::Unbound { .. })), "{refused:?}");
    }
    assert!(matches!(scram_by(Some(b"hash"), true, PLAIN), Err(LoginError::Unbound { .. })));
}

#[test]
fn a_login_that_has_to_be_bound_is_no_other() {
    for (kind, data) in [(0, &b""[..]), (3, b""), (5, b"salt")] {
        let end_point = Some(b"hash".to_vec());
        let settings = LoginSettings { end_point, must_bind: true, ..settings(Some(PASSWORD)) };
        let mut session = Session { login: Login::new(settings), out: BytesMut::new() };
        let refused = session.authentication(kind, data);
        assert!(matches!(refused, Err(LoginError::Unbound { .. })), "{kind}: {refused:?}");
        assert!(session.out.is_empty(), "{kind}");
    }
}

#[test]
fn a_server_that_skips_its_proof_is_not_believed() {
    let mut session = Session::begin(Some(PASSWORD));
    session.scram();
    assert_eq!(session.authentication(0, b""), Err(LoginError::Unproven));

    let mut session = Session::begin(Some(PASSWORD));
    let nonce = session.scram();
    let server_first = format!("r={nonce}server,s=c2FsdHNhbHQ=,i=4096");
    session.authentication(11, server_first.as_bytes()).unwrap();
    assert_eq!(session.authentication(0, b""), Err(LoginError::Unproven));
}

#[test]
fn scram_parameters_are_checked_before_anything_is_computed() {
    let mut session = Session::begin(Some(PASSWORD));
    let nonce = session.scram();
    let server_first = format!("r={nonce}server,s=c2FsdHNhbHQ=,i=4000000000");
    let refused = session.authentication(11, server_first.as_bytes());
    let expected = ScramError::TooManyIterations { iterations: 4_000_000_000 };
    assert_eq!(refused, Err(LoginError::Scram(expected)));

    let mut session = Session::begin(Some(PASSWORD));
    session.scram();
    let refused = session.authentication(11, b"r=another,s=c2FsdHNhbHQ=,i=4096");
    assert!(matches!(refused, Err(LoginError::ScramFailed(_))), "{refused:?}");
}

#[test]
fn a_missing_password_is_said_before_the_server_can() {
    for password in [None, Some("")] {
        for (kind, data, method) in [
            (3, &b""[..], "cleartext"),
            (5, b"salt", "MD5"),
            (10, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256"),
        ] {
            let refused = Session::begin(password).authentication(kind, data);
            assert_eq!(refused, Err(LoginError::NoPassword { method }));
        }
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let said = |kind, data: &[u8]| {
        Session::begin(Some(PASSWORD)).authentication(kind, data).unwrap_err().to_string()
    };
    assert_eq!(said(7, b""), "PostgreSQL asks for GSSAPI authentication, which is not supported");
    assert!(said(99, b"").contains("number 99"));
    let mechanisms = said(10, b"SCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0");
    assert!(mechanisms.contains("'SCRAM-SHA-256-PLUS, OAUTHBEARER'"), "{mechanisms}");
}

#[test]
fn the_servers_refusal_is_passed_on() {
    let refused = Session::begin(None).say(b'E', b"VFATAL\0C3D000\0Mdatabase \"shop\" is not\0\0");
    let Err(LoginError::Server(error)) = refused else { panic!("{refused:?}") };
    assert_eq!((error.code.as_str(), error.severity.as_str()), ("3D000", "FATAL"));
}

#[test]
fn a_message_out_of_turn_is_an_error() {
    let mut session = Session::begin(Some(PASSWORD));
    session.authentication(3, b"").unwrap();
    // Asked twice: a password is sent once only.
    assert!(matches!(session.authentication(3, b""), Err(LoginError::Unexpected { .. })));
    assert!(matches!(session.authentication(0, b""), Err(LoginError::Unexpected { .. })));
    assert!(Session::begin(None).say(b'Z', b"I").is_err());
    assert!(Session::begin(None).say(b'd', b"").is_err());
    assert!(Session::begin(None).say(b'S', b"a\0b\0").is_err());
    assert!(Session::begin(None).authentication(11, b"").is_err());
}

#[test]
fn reported_settings_are_capped() {
    let mut session = Session::begin(None);
    session.authentication(0, b"").unwrap();
    for _ in 0..MAX_PARAMETERS {
        session.say(b'S', b"a\0b\0").unwrap();
    }
    assert_eq!(session.say(b'S', b"a\0b\0"), Err(LoginError::TooManyParameters));
}

#[test]
fn debug_tells_no_password() {
    let mut session = Session::begin(Some(PASSWORD));
    session.scram();
    let said = format!("{:?} {:?}", session.login, settings(Some(PASSWORD)));
    assert!(said.contains("relay") && !said.contains(PASSWORD), "{said}");
}

proptest! {
    #[test]
    fn any_messages_never_panic(
        messages in vec(
            (prop_oneof![4 => Just(b'R'), 1 => any::<u8>()], 0_u32..13, vec(any::<u8>(), 0..30)),
            0..8,
        ),
    ) {
        let mut session = Session::begin(Some(PASSWORD));
        for (tag, kind, data) in messages {
            let _ = session.say(tag, &[&kind.to_be_bytes(), data.as_slice()].concat());
        }
    }
}
