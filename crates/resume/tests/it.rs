//! The client's end and the frames.

use stateroom_wasmi_resume::{
    ClientError, ClientSession, Frame, Incoming, InvalidCount, InvalidFrame, Message, Window,
    WindowFull,
};

fn text(text: &str) -> Message {
    Message::Text(text.into())
}

#[test]
fn frames_are_read_as_they_were_written() {
    for frame in [
        Frame::Text(""),
        Frame::Text("m ünïcode"),
        Frame::Hello(None),
        Frame::Hello(Some((0, "s"))),
        Frame::Hello(Some((1 << 53, "0123-_azAZ"))),
        Frame::New("secret"),
        Frame::Resumed(17),
        Frame::Ack(0),
        Frame::Goodbye,
    ] {
        assert_eq!(Frame::from_text(&frame.to_string()), Ok(frame));
    }
    assert_eq!(
        Frame::from_bytes(b"m\x00\xff"),
        Ok(Frame::Bytes(b"\x00\xff"))
    );
    assert_eq!(Frame::from_bytes(b"m"), Ok(Frame::Bytes(b"")));
}

#[test]
fn everything_else_is_no_frame() {
    let long = format!("n{}", "x".repeat(65));
    for text in [
        "",
        "x",
        "M",
        "h ",
        "h1",
        "h1 ",
        "h 1",
        "h01 s",
        "h+1 s",
        "h1 s s",
        "h1 s\n",
        "n",
        "n n",
        "nü",
        &long,
        "r",
        "r-1",
        "r1 ",
        "r9007199254740993",
        "a",
        "a00",
        "a1.0",
        "a١",
        "gg",
    ] {
        assert_eq!(Frame::from_text(text), Err(InvalidFrame), "{text:?}");
    }
    assert_eq!(Frame::from_bytes(b""), Err(InvalidFrame));
    assert_eq!(Frame::from_bytes(b"a1"), Err(InvalidFrame));
}

#[test]
fn a_window_forgets_what_is_acknowledged_and_is_bounded() {
    let mut window = Window::default();
    for text in ["one", "two", "three"] {
        window.push(text, 3, 100).expect("space");
    }
    assert_eq!(window.push("four", 3, 100), Err(WindowFull));
    assert_eq!(
        (window.last(), window.acknowledged(), window.bytes()),
        (3, 0, 11)
    );
    assert_eq!(window.acknowledge(4), Err(InvalidCount));
    window.acknowledge(2).expect("they were sent");
    window.acknowledge(2).expect("again");
    assert_eq!(window.acknowledge(1), Err(InvalidCount));
    assert!(window.iter().eq([&"three"]));
    assert_eq!((window.len(), window.bytes()), (1, 5));
    assert_eq!(window.push("too long", 10, 10), Err(WindowFull));
    window.acknowledge(3).expect("it was sent");
    // One in any case.
    window
        .push("longer than the limit", 10, 10)
        .expect("it is empty");
    assert_eq!(window.last(), 4);
}

#[test]
fn a_session_goes_on_over_another_connection() {
    let mut session = ClientSession::new(10, 1000);
    // Before there is a connection.
    session.send(text("first")).expect("space");
    assert_eq!(session.hello(), "h");
    assert_eq!(session.receive(&text("m?")), Err(ClientError::InvalidFrame));
    assert_eq!(
        session.receive(&text("ns1")),
        Ok(Incoming::New { was_lost: false })
    );
    assert!(session.unacknowledged().eq([text("mfirst")]));
    let frame = session.send(Message::Binary(vec![1])).expect("space");
    assert_eq!(frame, Message::Binary(vec![0x6d, 1]));
    assert_eq!(
        session.receive(&text("mhi")),
        Ok(Incoming::Message(text("hi")))
    );
    assert_eq!(session.receive(&text("a1")), Ok(Incoming::Nothing));
    assert_eq!(session.ack(false), None);

    assert_eq!(session.hello(), "h1 s1");
    assert!(!session.is_open());
    assert_eq!(session.receive(&text("r1")), Ok(Incoming::Resumed));
    assert!(session.unacknowledged().eq([frame]));
    assert_eq!(session.ack(true), None, "the hello has said so");

    session.hello();
    assert_eq!(session.receive(&text("r9")), Err(ClientError::InvalidCount));
    session.hello();
    assert_eq!(
        session.receive(&text("ns2")),
        Ok(Incoming::New { was_lost: true })
    );
    assert_eq!(session.unacknowledged().count(), 0);
    for _ in 0..16 {
        session.receive(&text("m")).expect("a message");
    }
    assert_eq!(session.ack(false).as_deref(), Some("a16"));
}
