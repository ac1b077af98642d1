//! `attach`: boards that violate the protocol, or use it to do harm.

use super::{
    Client, Server,
    attack::ResourceUsage,
    eventually,
    raw_board::{
        BYTES, CONNECT, Capacity, DISCONNECT, HEAD_BYTES, JOINED, OUTPUT_TEXT, REFUSED,
        ROOM_CLOSED, RawBoard, Replies, TEXT,
    },
};
use futures_util::{StreamExt, future::join_all};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

/// A server that is attached to a board, in a session.
async fn attach(board: &mut RawBoard) -> Server {
    let server = Server::attach(&board.address, &[]);
    board.session().await;
    server
}

/// The ids of the rooms that the server lists.
async fn ids(server: &Server) -> Vec<String> {
    let rooms = server.rooms().await;
    let id = |room: &Value| room["id"].as_str().expect("text").to_owned();
    rooms.iter().map(id).collect()
}

/// The lines of the log that contain this.
fn logged(server: &Server, what: &str) -> usize {
    let log = server.log.lock().expect("not poisoned");
    log.lines().filter(|line| line.contains(what)).count()
}

async fn until_closed(client: &mut Client, code: u16, reason: &str) {
    assert_eq!(client.closed().await, (code, reason.to_owned()));
}

#[tokio::test]
async fn a_room_that_is_opened_again_closes_its_clients() {
    const REASON: &str = "the board has opened the room again";
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 3, "a").await;
    let (mut joined, joined_head) = board.joined(&server, "/a").await;
    let (mut pending, pending_head) = board.connecting(&server, "/a").await;

    board.send_opened(3, 1000, "a");
    until_closed(&mut joined, 1001, REASON).await;
    until_closed(&mut pending, 1001, REASON).await;
    // If the board has them still, it learns that they are gone.
    board.expect(DISCONNECT, &joined_head).await;
    board.expect(DISCONNECT, &pending_head).await;
    assert_eq!(ids(&server).await, ["a"]);

    // Others have other ids, so that they get nothing that was for those.
    let (mut newer, newer_head) = board.connecting(&server, "/a").await;
    for head in [&joined_head, &pending_head] {
        assert_ne!(newer_head, *head);
        board.send(JOINED, head);
        board.send_output(head, "for another");
    }
    board.admit(&mut newer, &newer_head).await;
    assert_eq!(logged(&server, "opened while a room of its id"), 1);
}

#[tokio::test]
async fn an_id_under_two_numbers_is_that_of_the_newer_room() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 1, "a").await;
    let (mut older, older_head) = board.joined(&server, "/a").await;
    assert_eq!(older_head[0], 1);

    board.send_opened(2, 1000, "a");
    until_closed(&mut older, 1001, "the board has opened the room again").await;
    board.expect(DISCONNECT, &older_head).await;
    assert_eq!(ids(&server).await, ["a"]);
    let (mut newer, newer_head) = board.joined(&server, "/a").await;
    assert_eq!(newer_head[0], 2);

    // The end of the older one is its own.
    board.send(ROOM_CLOSED, b"\x01\x01a fault");
    board.send_output(&newer_head, "still here");
    newer.expect("still here").await;
    assert_eq!(ids(&server).await, ["a"]);
    let list: Value = serde_json::from_str(&server.get("/rooms").await.body).expect("JSON");
    assert_eq!(list["failed"][0]["fault"], "a fault");
}

#[tokio::test]
async fn a_join_that_is_not_answered_closes_with_1013() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let (mut x, x_head) = board.connecting(&server, "/a?token=x").await;
    let (mut y, y_head) = board.connecting(&server, "/a?token=y").await;
    for (client, head) in [(&mut x, &x_head), (&mut y, &y_head)] {
        until_closed(client, 1013, "the board does not answer").await;
        board.expect(DISCONNECT, head).await;
    }

    // They come back, with the ids that they had, before the board answers their first connects.
    let (mut x, again) = board.connecting(&server, "/a?token=x").await;
    assert_eq!(again, x_head);
    let (mut y, again) = board.connecting(&server, "/a?token=y").await;
    assert_eq!(again, y_head);
    board.send(JOINED, &x_head);
    board.send_output(&x_head, "for the earlier connection");
    // The room is full.
    board.send(REFUSED, &[&y_head[..], &[2]].concat());
    // Now it answers their second.
    board.admit(&mut x, &x_head).await;
    board.admit(&mut y, &y_head).await;
}

#[tokio::test]
async fn answers_about_replaced_connections_are_not_taken_for_those_of_newer_ones() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let (mut older, head) = board.connecting(&server, "/a?token=t").await;
    let refusal = |reason: u8| [&head[..], &[reason]].concat();
    for (kind, late) in [
        (JOINED, head.clone()),
        // The room is full.
        (REFUSED, refusal(2)),
    ] {
        let mut newer = server.join("/a?token=t").await;
        board.expect(DISCONNECT, &head).await;
        board.expect(CONNECT, &head).await;
        until_closed(&mut older, 1008, "replaced by a newer connection").await;
        board.send(kind, &late);
        board.send_output(&head, "for the older connection");
        board.admit(&mut newer, &head).await;
        // It has joined, and the next one replaces it before its own connect is answered.
        older = server.join("/a?token=t").await;
        board.expect(DISCONNECT, &head).await;
        board.expect(CONNECT, &head).await;
        until_closed(&mut newer, 1008, "replaced by a newer connection").await;
        // About a message of the one that had joined: it is too long.
        board.send(REFUSED, &refusal(3));
    }
    board.admit(&mut older, &head).await;
}

#[tokio::test]
async fn a_refused_client_is_told_why_and_the_board_that_it_is_gone() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    for (reason, code, text) in [
        (1, 1001, "the room is closed"),
        (2, 1013, "the room is full"),
        (4, 1011, "the board and the bridge disagree"),
        (5, 1011, "the board and the bridge disagree"),
    ] {
        let (mut client, head) = board.connecting(&server, "/a").await;
        board.send(REFUSED, &[&head[..], &[reason]].concat());
        until_closed(&mut client, code, text).await;
        // If it has it nevertheless.
        board.expect(DISCONNECT, &head).await;
    }
    for (reason, code, text) in [
        (3, 1009, "the message exceeds the room's limit"),
        (6, 1007, "the text is not UTF-8"),
    ] {
        let (mut client, head) = board.joined(&server, "/a").await;
        board.send(REFUSED, &[&head[..], &[reason]].concat());
        until_closed(&mut client, code, text).await;
        board.expect(DISCONNECT, &head).await;
    }
    // A reason of a later version, and clients that do not exist.
    let (mut client, head) = board.joined(&server, "/a").await;
    board.send(REFUSED, &[&head[..], &[99]].concat());
    board.send(REFUSED, &[0, 0, 0, 0, 0, 2]);
    board.send(REFUSED, &[9, 255, 255, 255, 255, 2]);
    board.send_output(&head, "still here");
    client.expect("still here").await;
}

#[tokio::test]
async fn messages_that_are_too_long_for_the_link_close_with_1009() {
    // A window that is shorter than any frame, which is then sent alone.
    let mut board = RawBoard::with_capacity(Capacity {
        max_body_bytes: 100 + HEAD_BYTES as u32,
        window_bytes: 1,
    });
    let server = attach(&mut board).await;
    // The board contradicts its hello.
    board.send_opened(0, u32::MAX, "a");
    server
        .until_room("a", "the room is known", |room| room.is_some())
        .await;
    let (mut client, head) = board.joined(&server, "/a").await;
    let (mut other, other_head) = board.joined(&server, "/a").await;
    let longest = "x".repeat(100);
    client.send(longest.clone()).await;
    board
        .expect(TEXT, &[&head[..], longest.as_bytes()].concat())
        .await;

    for length in [101, 1_000_000] {
        let (mut client, head) = board.joined(&server, "/a").await;
        client.send(vec![0; length]).await;
        client.send("behind it").await;
        other.send("of another").await;
        let reason = "the message is longer than the link to the board takes";
        until_closed(&mut client, 1009, reason).await;
        let mut events = [board.event().await, board.event().await];
        events.sort_by_key(|event| event.kind);
        assert_eq!((events[0].kind, &events[0].body), (DISCONNECT, &head));
        let text = [&other_head[..], b"of another"].concat();
        assert_eq!((events[1].kind, &events[1].body), (TEXT, &text));
    }
}

#[tokio::test]
async fn a_board_that_takes_no_clients_closes_with_1011() {
    let mut board = RawBoard::with_capacity(Capacity {
        max_body_bytes: HEAD_BYTES as u32 - 1,
        window_bytes: 0,
    });
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    for _ in 0..3 {
        let mut client = server.join("/a").await;
        until_closed(&mut client, 1011, "the link to the board takes no clients").await;
    }
}

/// Each of them takes half a minute, so all at once.
#[tokio::test]
async fn a_board_that_does_not_acknowledge_ends_its_session() {
    let wrong = [
        Replies::Unacknowledged,
        Replies::Ahead,
        Replies::Backwards,
        Replies::Reject,
    ];
    let end = async |replies| {
        let mut board = RawBoard::new();
        let server = attach(&mut board).await;
        board.open(&server, 0, "a").await;
        let (mut client, _) = board.joined(&server, "/a").await;
        board.set_replies(replies);
        client.send("hello").await;
        let reason = "the board does not acknowledge what it is sent";
        until_closed(&mut client, 1012, reason).await;
        // The link is opened again, and a board that has recovered is served.
        board.set_replies(Replies::Correct);
        board.session().await;
        board.open(&server, 0, "a").await;
        board.joined(&server, "/a").await;
    };
    join_all(wrong.map(end)).await;
}

#[tokio::test]
async fn wrong_acknowledgements_lose_no_message() {
    for replies in [Replies::Ahead, Replies::Backwards, Replies::Reject] {
        let mut board = RawBoard::new();
        let server = attach(&mut board).await;
        board.open(&server, 0, "a").await;
        let (mut client, head) = board.joined(&server, "/a").await;
        board.set_replies(replies);
        for number in 0..10 {
            client.send(number.to_string()).await;
        }
        // The first few, before the window is full.
        board.until_seen(TEXT, 3).await;
        board.set_replies(Replies::Correct);
        for number in 0..10 {
            let text = [&head[..], number.to_string().as_bytes()].concat();
            board.expect(TEXT, &text).await;
        }
    }
}

#[tokio::test]
async fn a_busy_board_is_waited_for_and_what_waits_is_bounded() {
    // As much as each client may have in flight, and more than waits for all.
    const CLIENTS: usize = 25;
    const MESSAGES: usize = 16;
    const BYTES_EACH: usize = 50_000;
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(board.joined(&server, "/a").await);
    }
    let before = ResourceUsage::of(&server);
    board.set_replies(Replies::Busy);
    let mut sending = Vec::new();
    for (mut client, head) in clients {
        sending.push(tokio::spawn(async move {
            for number in 0..MESSAGES {
                let mut message = vec![b'x'; BYTES_EACH];
                message[0] = number as u8;
                client.send(Message::binary(message)).await;
            }
            (client, head)
        }));
    }
    // Retransmissions, at half a second, and one, and two after that.
    board.until_seen(BYTES, 4).await;
    let after = ResourceUsage::of(&server);
    println!("{before:?}, then {after:?}");
    // All messages are 20 MB. What waits is bounded to less than half of it.
    assert!(
        after.memory_mib < before.memory_mib + 16,
        "{before:?}, then {after:?}"
    );

    board.set_replies(Replies::Correct);
    let mut next = std::collections::HashMap::<_, u8>::new();
    for _ in 0..CLIENTS * MESSAGES {
        let event = board.event().await;
        assert_eq!(event.kind, BYTES);
        let (head, message) = event.body.split_at(HEAD_BYTES);
        let next = next.entry(head.to_owned()).or_default();
        assert_eq!((message.len(), message[0]), (BYTES_EACH, *next));
        *next += 1;
    }
    for sent in sending {
        let (mut client, head) = sent.await.expect("it was sent");
        board.send_output(&head, "still here");
        client.expect("still here").await;
    }
}

#[tokio::test]
async fn joins_at_a_busy_board_are_bounded() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    board.set_replies(Replies::Busy);
    // A client that connects again and again, of which the board must be told.
    let mut older = server.join("/a?token=t").await;
    let mut rejected = None;
    for _ in 0..1200 {
        let mut newer = server.join("/a?token=t").await;
        tokio::select! {
            closed = older.closed() => assert_eq!(closed.0, 1008),
            closed = newer.closed() => {
                rejected = Some(closed);
                break;
            }
        }
        older = newer;
    }
    assert_eq!(rejected, Some((1013, "the board is busy".into())));
    // The last that was not rejected joins when the board has answered all connects.
    board.set_replies(Replies::Correct);
    let text = loop {
        tokio::select! {
            event = board.event() => {
                if event.kind == CONNECT {
                    board.send(JOINED, &event.body);
                    board.send_output(&event.body, "welcome");
                }
            }
            text = older.receive_text() => break text,
        }
    };
    assert_eq!(text, "welcome");
}

#[tokio::test]
async fn outputs_for_nobody_are_dropped() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let (mut client, head) = board.joined(&server, "/a").await;
    let (mut pending, pending_head) = board.connecting(&server, "/a").await;
    let id = u32::from_le_bytes(head[1..].try_into().expect("four bytes"));
    let output = |room: u8, recipient: u8, client: u32, text: &str| {
        [
            &[room, recipient][..],
            &client.to_le_bytes(),
            text.as_bytes(),
        ]
        .concat()
    };
    for body in [
        // Rooms that there are not.
        output(1, 0, 0, "no"),
        output(255, 1, id, "no"),
        // Clients that there are not.
        output(0, 1, 0, "no"),
        output(0, 1, id + 100, "no"),
        output(0, 1, u32::MAX, "no"),
        // Nobody but this client.
        output(0, 2, id, "no"),
        // A recipient of a later version, and bodies that end early.
        output(0, 3, id, "no"),
        vec![0, 1],
        vec![],
    ] {
        board.send(OUTPUT_TEXT, &body);
    }
    // Text that is not UTF-8.
    board.send(OUTPUT_TEXT, &[&output(0, 1, id, "")[..], b"\xff"].concat());
    // To clients that have joined, of which there is one.
    board.send(OUTPUT_TEXT, &output(0, 0, 0, "to all"));
    client.expect("to all").await;
    board.admit(&mut pending, &pending_head).await;
}

#[tokio::test]
async fn a_flood_of_outputs_disturbs_no_other_client() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let (mut client, head) = board.joined(&server, "/a").await;
    let (mut slow, slow_head) = board.joined(&server, "/a").await;
    let before = ResourceUsage::of(&server);
    // To a room that there is not, and to a client that does not read.
    for output in [[9, 0, 0, 0, 0, 0], {
        let mut output = [0, 1, 0, 0, 0, 0];
        output[2..].copy_from_slice(&slow_head[1..]);
        output
    }] {
        let flood = board.flood(OUTPUT_TEXT, [&output[..], &[b'x'; 400]].concat());
        for number in 0..20 {
            client.send(Message::Ping(vec![number].into())).await;
            let pong = eventually("a pong", client.0.next()).await;
            let pong = pong.expect("open").expect("open");
            assert_eq!(pong, Message::Pong(vec![number].into()));
            assert_eq!(server.get("/status").await.status, 200);
            assert_eq!(ids(&server).await, ["a"]);
        }
        if output[0] == 0 {
            board.expect(DISCONNECT, &slow_head).await;
        }
        drop(flood);
        client.send("hello").await;
        board.expect(TEXT, &[&head[..], b"hello"].concat()).await;
    }
    let (code, reason) = slow.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.starts_with("too slow"), "{reason}");
    let after = ResourceUsage::of(&server);
    println!("{before:?}, then {after:?}");
    assert!(
        after.memory_mib < before.memory_mib + 32,
        "{before:?}, then {after:?}"
    );
    board.send_output(&head, "still here");
    client.expect("still here").await;
}

#[tokio::test]
async fn shutdown_ends_a_flood() {
    let mut board = RawBoard::new();
    let mut server = attach(&mut board).await;
    board.open(&server, 0, "a").await;
    let (mut client, _) = board.joined(&server, "/a").await;
    let _flood = board.flood(OUTPUT_TEXT, vec![9, 0, 0, 0, 0, 0]);
    server.signal("-TERM");
    until_closed(&mut client, 1001, "the server is stopping").await;
    drop(client);
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn floods_of_rooms_are_bounded_in_memory_and_log() {
    let mut board = RawBoard::new();
    let server = attach(&mut board).await;
    board.open(&server, 0, "mine").await;
    let (mut client, head) = board.joined(&server, "/mine").await;
    for round in 0..10_000 {
        let number = 1 + (round % 255) as u8;
        let id = format!("{round}\n[forged]\x1b[2J");
        board.send_opened(number, u32::MAX, &id);
        // Then those that are opened are not closed before.
        if round < 5_000 {
            board.send(ROOM_CLOSED, &[&[number, 1], id.as_bytes()].concat());
        }
    }
    // Ids that are too long to be a room's.
    for number in 1..=255 {
        board.send_opened(number, 1000, &"é".repeat(129));
    }
    board.open(&server, 7, "last").await;
    assert_eq!(ids(&server).await, ["last", "mine"]);
    let fault = "a fault\n[forged]\x1b[2J".repeat(1000);
    let closed = [b"\x07\x01", fault.as_bytes()].concat();
    let (mut failing, _) = board.joined(&server, "/last").await;
    board.send(ROOM_CLOSED, &closed);
    let (code, reason) = failing.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.starts_with("a fault\\n[forged]\\x1b[2J"),
        "{reason:?}"
    );
    let list: Value = serde_json::from_str(&server.get("/rooms").await.body).expect("JSON");
    let failed = list["failed"].as_array().expect("a list");
    assert!(failed.len() <= 100, "{} rooms", failed.len());
    let failed = failed.iter().find(|room| room["id"] == "last");
    let failed = failed.expect("it is listed");
    let fault = failed["fault"].as_str().expect("text");
    // A thousand characters before they are escaped.
    assert!((1000..1300).contains(&fault.len()), "{fault}");

    let log = server.log.lock().expect("not poisoned").clone();
    assert!(!log.contains('\x1b'), "{log:?}");
    assert!(log.lines().all(|line| line.starts_with("[20")), "{log}");
    // The first of them, and some each second.
    let lines = log.lines().count();
    assert!(lines < 1000, "{lines} lines");
    assert!(log.lines().all(|line| line.len() < 10_000), "{log}");
    board.send_output(&head, "still here");
    client.expect("still here").await;
}
