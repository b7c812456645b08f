use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> SessionSettings {
    SessionSettings {
        host: "/".to_owned(),
        login: Some("relay".to_owned()),
        passcode: Some(Secret::new("hush-hush".to_owned())),
        client_id: None,
        escape_connect: false,
        heartbeat_send: 10 * SECOND,
        heartbeat_expect: 10 * SECOND,
        limits: Limits::default(),
    }
}

fn connecting() -> Session {
    let mut session = Session::new(settings(), Duration::ZERO);
    session.connect(&mut BytesMut::new()).unwrap();
    session
}

fn receive(session: &mut Session, bytes: &str) -> Result<Vec<Event>, SessionError> {
    receive_at(session, bytes, Duration::ZERO)
}

fn receive_at(
    session: &mut Session,
    bytes: &str,
    now: Duration,
) -> Result<Vec<Event>, SessionError> {
    let mut input = BytesMut::from(bytes);
    let mut events = Vec::new();
    while let Some(event) = session.receive(&mut input, now)? {
        events.push(event);
    }
    assert!(input.is_empty(), "{input:?}");
    Ok(events)
}

/// A connection at time zero with the given `heart-beat` header of the broker.
fn connected(heartbeat: &str) -> Session {
    let mut session = connecting();
    let answer = format!("CONNECTED\nversion:1.2\nheart-beat:{heartbeat}\n\n\0\n");
    receive(&mut session, &answer).unwrap();
    session
}

#[test]
fn connect_says_what_it_should() {
    let mut out = BytesMut::new();
    Session::new(settings(), Duration::ZERO).connect(&mut out).unwrap();
    let expected = "CONNECT\naccept-version:1.0,1.1,1.2\nhost:/\nlogin:relay\npasscode:hush-hush\n\
                    heart-beat:10000,10000\n\n\0";
    assert_eq!(out, expected.as_bytes());

    // Nothing is escaped here, in no version.
    let mut out = BytesMut::new();
    let odd = SessionSettings {
        host: "a:b".to_owned(),
        login: None,
        passcode: Some(Secret::new("c\\d:e".to_owned())),
        heartbeat_send: Duration::ZERO,
        ..settings()
    };
    Session::new(odd, Duration::ZERO).connect(&mut out).unwrap();
    let expected = "CONNECT\naccept-version:1.0,1.1,1.2\nhost:a:b\npasscode:c\\d:e\n\
                    heart-beat:0,10000\n\n\0";
    assert_eq!(out, expected.as_bytes());
}

#[test]
fn rabbitmq_wants_escapes_in_connect() {
    let mut out = BytesMut::new();
    let windows = SessionSettings {
        login: Some("DOMAIN\\relay".to_owned()),
        passcode: Some(Secret::new("hush:\n".to_owned())),
        escape_connect: true,
        ..settings()
    };
    assert!(windows.has_escapes() && !settings().has_escapes());
    Session::new(windows, Duration::ZERO).connect(&mut out).unwrap();
    let expected = "CONNECT\naccept-version:1.0,1.1,1.2\nhost:/\nlogin:DOMAIN\\\\relay\n\
                    passcode:hush\\c\\n\nheart-beat:10000,10000\n\n\0";
    assert_eq!(out, expected.as_bytes());
}

#[test]
fn a_passcode_with_a_line_end_is_refused_and_not_shown() {
    for passcode in ["hush\nlogin:admin", "hush\r", "hush\0"] {
        let odd =
            SessionSettings { passcode: Some(Secret::new(passcode.to_owned())), ..settings() };
        let mut out = BytesMut::new();
        let error = Session::new(odd, Duration::ZERO).connect(&mut out).unwrap_err();
        assert!(out.is_empty());
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("passcode") && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn the_answers_of_real_brokers() {
    let table = [
        (
            "CONNECTED\nserver:RabbitMQ/3.10.8\nsession:session-AbC\nheart-beat:10000,10000\nversion:1.2\n\n\0\n",
            (Version::V1_2, Some("RabbitMQ/3.10.8"), (10, 10)),
        ),
        (
            "CONNECTED\r\nversion:1.1\r\nserver:ActiveMQ/5.17.2\r\nheart-beat:5000,20000\r\nsession:ID:host-1:2\r\n\r\n\0\r\n",
            (Version::V1_1, Some("ActiveMQ/5.17.2"), (20, 10)),
        ),
        ("CONNECTED\nsession:x\n\n\0", (Version::V1_0, None, (0, 0))),
        ("CONNECTED\nversion:1.0\nheart-beat:1000,1000\n\n\0", (Version::V1_0, None, (0, 0))),
        ("\n\nCONNECTED\nversion:1.2\nserver:a\\b\n\n\0", (Version::V1_2, Some("a\\b"), (0, 0))),
    ];
    for (bytes, (version, server, (send, expect))) in table {
        let mut session = connecting();
        let events = receive(&mut session, bytes).unwrap();
        let [Event::Connected(connected)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(connected.version, version, "{bytes}");
        assert_eq!(connected.server.as_deref(), server, "{bytes}");
        assert_eq!(connected.heartbeat, (send * SECOND, expect * SECOND), "{bytes}");
        assert_eq!(session.version(), version);
        assert_eq!(session.heartbeats_expected(), expect > 0);
    }
}

#[test]
fn the_version_holds_from_the_next_frame_of_the_same_read() {
    for (version, message) in [("1.0", "a\\cb"), ("1.1", "a:b"), ("1.2", "a:b")] {
        let bytes = format!("CONNECTED\nversion:{version}\n\n\0ERROR\nmessage:a\\cb\n\n\0");
        let events = receive(&mut connecting(), &bytes).unwrap();
        let Event::Error(error) = &events[1] else { panic!("{events:?}") };
        assert_eq!(error.message, message);
    }
}

#[test]
fn a_refusal_brings_the_brokers_words_and_no_passcode() {
    let mut session = connecting();
    let answer = "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\ncontent-length:61\n\n\
                  Access refused for user 'relay' with passcode hush-hush, sir\n\0";
    let error = receive(&mut session, answer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker refused the connection: Bad CONNECT: \
         Access refused for user 'relay' with passcode ***, sir"
    );
    assert!(!format!("{error:?} {session:?}").contains("hush"));
    assert_eq!(
        receive(&mut session, "RECEIPT\nreceipt-id:1\n\n\0"),
        Err(SessionError::NotConnected("RECEIPT"))
    );
}

#[test]
fn a_passcode_that_is_the_login_hides_nobodys_name() {
    let guest = SessionSettings {
        login: Some("guest".to_owned()),
        passcode: Some(Secret::new("guest".to_owned())),
        ..settings()
    };
    let mut session = Session::new(guest, Duration::ZERO);
    session.connect(&mut BytesMut::new()).unwrap();
    let error = receive(&mut session, "ERROR\nmessage:no guest here\n\n\0").unwrap_err();
    assert_eq!(error.to_string(), "the broker refused the connection: no guest here");
}

#[test]
fn what_comes_after_connected() {
    let mut session = connected("0,0");
    let events = receive(
        &mut session,
        "RECEIPT\nreceipt-id:7\n\n\0\nRECEIPT\nreceipt-id:x-1\n\n\0\n\n\
         ERROR\nmessage:Invalid header\nreceipt-id:9\n\nwhy\n\0\nMESSAGE\ndestination:/queue/a\n\nbody\0",
    )
    .unwrap();
    let [
        Event::Receipt(7),
        Event::OtherReceipt(other),
        Event::Error(error),
        Event::Message(message),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(other, "x-1");
    assert_eq!((error.receipt_id.as_deref(), error.body.as_str()), (Some("9"), "why\n"));
    assert_eq!(
        (message.header("destination"), &message.body[..]),
        (Some("/queue/a"), &b"body"[..])
    );
    // An ERROR does not end the session: the broker may keep it open.
    assert_eq!(receive(&mut session, "RECEIPT\nreceipt-id:8\n\n\0").unwrap(), [Event::Receipt(8)]);
}

#[test]
fn what_may_not_come() {
    let fails =
        |session: &mut Session, bytes: &str| receive(session, bytes).unwrap_err().to_string();
    let mut new = Session::new(settings(), Duration::ZERO);
    assert_eq!(
        fails(&mut new, "CONNECTED\n\n\0"),
        "the broker sent CONNECTED on a connection that is not open"
    );
    for (bytes, words) in [
        ("RECEIPT\nreceipt-id:1\n\n\0", "the broker sent RECEIPT before CONNECTED"),
        ("RECEIPT\nreceipt-id:x\n\n\0", "the broker sent RECEIPT before CONNECTED"),
        ("MESSAGE\n\n\0", "the broker sent MESSAGE before CONNECTED"),
        ("CONNECT\npasscode:hush-hush\n\n\0", "the broker sent CONNECT which only clients send"),
        (
            "CONNECTED\nversion:2.0\n\n\0",
            "the broker chose STOMP version '2.0', which was not offered",
        ),
        (
            "CONNECTED\nversion:1.1\nheart-beat:soon\n\n\0",
            "the broker's heart-beat header 'soon' is not two numbers",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n",
            "cannot read what the broker sent: 'HTTP/1.1 400 Bad Request' is no STOMP command; does this port speak \
             STOMP, with the right TLS setting?",
        ),
    ] {
        assert_eq!(fails(&mut connecting(), bytes), words);
    }
    for (bytes, words) in [
        ("CONNECTED\nversion:1.2\n\n\0", "the broker sent CONNECTED twice"),
        ("RECEIPT\n\n\0", "the broker sent RECEIPT without a receipt-id"),
        ("SEND\n\n\0", "the broker sent SEND which only clients send"),
    ] {
        assert_eq!(fails(&mut connected("0,0"), bytes), words);
    }
}

#[test]
fn nothing_is_due_before_connected_or_without_heartbeats() {
    let mut out = BytesMut::new();
    for mut session in [connecting(), connected("0,0")] {
        assert_eq!(session.deadline(), None);
        session.tick(1_000_000 * SECOND, &mut out).unwrap();
        assert!(out.is_empty());
    }
}

#[test]
fn beats_go_out_at_half_the_interval() {
    let mut session = connected("0,10000");
    assert!(!session.heartbeats_expected());
    let mut out = BytesMut::new();
    assert_eq!(session.deadline(), Some(5 * SECOND));
    session.tick(4 * SECOND, &mut out).unwrap();
    assert!(out.is_empty());
    session.wrote(4 * SECOND);
    assert_eq!(session.deadline(), Some(9 * SECOND));
    session.tick(9 * SECOND, &mut out).unwrap();
    assert_eq!(out, &b"\n"[..]);
    // Not again at once, though nothing was written yet.
    session.tick(9 * SECOND, &mut out).unwrap();
    assert_eq!(out, &b"\n"[..]);
    assert_eq!(session.deadline(), Some(14 * SECOND));
}

#[test]
fn a_silent_peer_is_dead_after_three_intervals() {
    let mut session = connected("10000,0");
    let mut out = BytesMut::new();
    assert_eq!(session.deadline(), Some(30 * SECOND));
    session.tick(29 * SECOND, &mut out).unwrap();
    // A heart-beat counts, as does half a frame.
    receive_at(&mut session, "\n", 29 * SECOND).unwrap();
    assert_eq!(session.deadline(), Some(59 * SECOND));
    let mut input = BytesMut::from("RECEIPT\nrece");
    assert_eq!(session.receive(&mut input, 50 * SECOND), Ok(None));
    assert_eq!(session.deadline(), Some(80 * SECOND));
    // What was there before is no sign of life.
    assert_eq!(session.receive(&mut input, 70 * SECOND), Ok(None));
    assert_eq!(session.deadline(), Some(80 * SECOND));
    input.extend_from_slice(b"i");
    assert_eq!(session.receive(&mut input, 71 * SECOND), Ok(None));
    assert_eq!(session.deadline(), Some(101 * SECOND));
    let error = session.tick(102 * SECOND, &mut out).unwrap_err();
    assert_eq!(error, SessionError::PeerSilent { silent_for: 31 * SECOND, allowed: 30 * SECOND });
    assert_eq!(error.to_string(), "the broker has been silent for 31.0s (allowed: 30.0s)");
    assert!(out.is_empty());
}

/// Two days in virtual time: driven by its own deadlines alone, the session lets itself be heard
/// often enough and is silent about a peer that keeps to what was agreed.
#[test]
fn deadlines_alone_keep_the_peace() {
    let mut session = connected("7000,3000");
    let (mut now, mut heard, mut beats) = (Duration::ZERO, Duration::ZERO, 0_u32);
    let mut out = BytesMut::new();
    while now < 48 * 3600 * SECOND {
        // The peer beats late, as ActiveMQ does: after 19 seconds in place of 10.
        let next = session.deadline().unwrap().min(heard + 19 * SECOND);
        assert!(next > now, "the deadline does not move on");
        now = next;
        if now == heard + 19 * SECOND {
            receive_at(&mut session, "\n", now).unwrap();
            heard = now;
        }
        session.tick(now, &mut out).unwrap();
        if !out.is_empty() {
            assert_eq!(out, &b"\n"[..]);
            out.clear();
            beats += 1;
            session.wrote(now);
        }
    }
    assert_eq!(beats, 48 * 3600 / 5);
}
