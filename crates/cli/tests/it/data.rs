//! Rooms that survive: `serve --data`, killed and stopped, and the commands of `store`.

use super::{Client, Server, TempDir, bundled_path, tool};
use crate::support::{ENV, Random, SAY, guest_0_2};
use std::{path::Path, process::Output};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error, Message};

/// A guest that counts what each of its clients 1 to 1,000 has said, and replies to it with that number.
fn counter() -> String {
    let count = "(local $n i32)
        (local.set $n (i32.add (i32.const 8192) (i32.mul (local.get 0) (i32.const 4))))
        (i32.store (local.get $n) (i32.add (i32.load (local.get $n)) (i32.const 1)))
        (call $send_binary (local.get 0) (local.get $n) (i32.const 4))";
    guest_0_2(ENV, &[("message", count)], SAY)
}

struct Data {
    folder: TempDir,
    /// The guest and the rooms.
    module: std::path::PathBuf,
}

impl Data {
    fn new(guest: &str) -> Self {
        let folder = TempDir::new();
        let module = folder.write("guest.wat", guest);
        Self { folder, module }
    }

    fn rooms(&self) -> String {
        let rooms = self.folder.0.join("rooms");
        rooms.to_str().expect("UTF-8").to_owned()
    }

    fn serve(&self, args: &[&str]) -> Server {
        let rooms = self.rooms();
        Server::start(&self.module, &[&["--data", &rooms], args].concat())
    }

    /// Runs a command of `store`.
    fn store(&self, command: &str, args: &[&str]) -> Output {
        tool(&[&["store", command, &self.rooms()], args].concat())
    }

    /// What `store show` says of a room, but for its age and the bytes of its events, which have its number.
    fn show(&self, room: &str) -> Vec<String> {
        let shown = succeeds(&self.store("show", &[room]));
        let lines = shown.lines().filter(|line| !line.starts_with("saved"));
        let lines = lines.filter_map(|line| line.split(", ").next());
        lines.map(Into::into).collect()
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[track_caller]
fn fails(output: &Output, reason: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains(reason), "{stderr}");
}

/// The next number that a client is sent; none if the connection is lost.
async fn number(client: &mut Client) -> Option<u32> {
    use futures_util::StreamExt;
    loop {
        match client.0.next().await? {
            Ok(Message::Binary(bytes)) => {
                return Some(u32::from_le_bytes(
                    bytes[..].try_into().expect("four bytes"),
                ));
            }
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// A client of a room, with what it knows of its count.
struct Counting {
    path: String,
    /// The highest number that it has seen.
    seen: u32,
    /// How many messages it has sent.
    sent: u32,
}

impl Counting {
    /// Talks until the connection is lost; each number must be the next.
    async fn talk(mut self, address: String) -> Self {
        use futures_util::SinkExt;
        let url = format!("ws://{address}/ws{}", self.path);
        let Ok((socket, _)) = tokio_tungstenite::connect_async(url).await else {
            return self;
        };
        let mut client = Client(socket);
        let mut is_first = true;
        while Result::<(), Error>::is_ok(&client.0.send(Message::text("count")).await) {
            self.sent += 1;
            let Some(number) = number(&mut client).await else {
                break;
            };
            if is_first {
                // What was sent last before a crash may have been lost, or not.
                assert!(
                    (self.seen + 1..=self.sent).contains(&number),
                    "{number} after {} of {}",
                    self.seen,
                    self.sent
                );
                is_first = false;
            } else {
                assert_eq!(number, self.seen + 1);
            }
            self.seen = number;
        }
        self
    }
}

/// Kills the server again and again while clients count: nothing that one of them has seen is lost, and
/// nothing is counted twice. `KILLS` has how often.
#[tokio::test]
async fn a_killed_server_loses_nothing_that_was_seen() {
    let kills = std::env::var("KILLS").map_or(20, |kills| kills.parse().expect("a number"));
    let mut random = Random::new();
    let data = Data::new(&counter());
    let mut clients: Vec<_> = (0..12)
        .map(|index| Counting {
            path: format!("/room-{}?token=client-{index}", index % 5),
            seen: 0,
            sent: 0,
        })
        .collect();
    let mut total = 0;
    for kill in 0..kills {
        let server = data.serve(&["--message-rate", "0", "--hibernate-after", "1"]);
        let mut talking = JoinSet::new();
        for client in clients.drain(..) {
            talking.spawn(client.talk(server.address.clone()));
        }
        // Sometimes while it restores, sometimes later.
        let wait = random.below(if kill % 4 == 0 { 1200 } else { 150 });
        tokio::time::sleep(std::time::Duration::from_millis(wait as u64)).await;
        server.signal("-KILL");
        clients = talking.join_all().await;
        total = clients.iter().map(|client| client.seen).sum();
    }
    assert!(total > kills, "they have counted: {total}");
    // And what is left is what they have seen, or what was on the way.
    let server = data.serve(&[]);
    for client in clients {
        let mut last = server.join(&client.path).await;
        last.send("count").await;
        let number = number(&mut last).await.expect("it is connected");
        assert!((client.seen + 1..=client.sent + 1).contains(&number));
    }
}

#[tokio::test]
async fn a_stopped_server_saves_and_its_rooms_go_on() {
    let data = Data::new(&counter());
    let mut server = data.serve(&[]);
    let mut client = server.join("/lobby?token=a").await;
    for n in 1..=3 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    server.signal("-TERM");
    assert_eq!(client.closed().await.0, 1001);
    drop(client);
    assert!(server.exited().await.success());
    let list = succeeds(&data.store("list", &[]));
    assert!(list.contains("\"lobby\": stored"), "{list}");
    assert!(list.contains("5 events and 0 since"), "{list}");

    let server = data.serve(&[]);
    let mut client = server.join("/lobby?token=a").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(4));
}

#[tokio::test]
async fn one_server_at_a_time_has_the_rooms() {
    let data = Data::new(&counter());
    let server = data.serve(&[]);
    let module = data.module.to_str().expect("UTF-8");
    let second = tool(&["serve", module, "--port", "0", "--data", &data.rooms()]);
    fails(&second, "another process has the store open");
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1));
    // It can be looked into meanwhile, and not changed.
    let list = succeeds(&data.store("list", &[]));
    assert!(list.contains("\"lobby\": stored"), "{list}");
    let show = succeeds(&data.store("show", &["lobby"]));
    assert!(show.contains("3 events"), "{show}");
    fails(
        &data.store("prune", &["--older-than", "0"]),
        "another process",
    );
    fails(&data.store("release", &["lobby"]), "another process");
}

#[tokio::test]
async fn a_room_is_exported_and_imported_with_its_events() {
    let data = Data::new(&counter());
    let server = data.serve(&[]);
    let mut client = server.join("/lobby?token=a").await;
    for n in 1..=3 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    let file = data.folder.0.join("lobby.room");
    let file = file.to_str().expect("UTF-8");
    fails(&data.store("export", &["hall", file]), "no such room");
    succeeds(&data.store("export", &["lobby", file]));

    let other = Data::new(&counter());
    succeeds(&other.store("import", &[file]));
    fails(&other.store("import", &[file]), "a room of this id");
    let imported = other.show("lobby");
    let server = other.serve(&[]);
    let mut client = server.join("/lobby").await;
    let mut ann = server.join("/lobby?token=a").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1));
    // Tokens are hashed by a secret of each store, so this one is somebody else.
    ann.send("count").await;
    assert_eq!(number(&mut ann).await, Some(1));
    drop((client, ann, server));

    // The room that is replaced is kept in a new file.
    let changed = other.show("lobby");
    assert_ne!(changed, imported);
    let old = other.folder.0.join("old.room");
    let old = old.to_str().expect("UTF-8");
    fails(&other.store("import", &[file]), "--replace");
    succeeds(&other.store("import", &[file, "--replace", old]));
    assert_eq!(other.show("lobby"), imported);
    fails(&other.store("import", &[file, "--replace", old]), "write");
    succeeds(&other.store("import", &[old, "--discard"]));
    assert_eq!(other.show("lobby"), changed);

    // The same again, event by event.
    let module = data.module.to_str().expect("UTF-8");
    let replayed = succeeds(&tool(&["replay", file, module]));
    let lines: Vec<_> = replayed.lines().collect();
    assert!(
        lines[0].starts_with("room \"lobby\" after 0 events"),
        "{replayed}"
    );
    let said = lines
        .iter()
        .filter(|line| line.ends_with("client 1 sends \"count\""));
    assert_eq!(said.count(), 3);
    assert_eq!(lines.last(), Some(&"    to client 1: 0x03000000"));
    let some = succeeds(&tool(&["replay", file, module, "--until", "2", "--step"]));
    assert!(
        !some.contains("0x02000000") && some.contains("state "),
        "{some}"
    );
    let chat = bundled_path("chat-rust-0.4");
    let chat = chat.to_str().expect("UTF-8");
    fails(&tool(&["replay", file, chat]), "module");

    let junk = data.folder.write("junk", "SRRF\x01 and more");
    let junk = junk.to_str().expect("UTF-8");
    fails(&other.store("import", &[junk]), "not one of `store export`");
    let removed = succeeds(&other.store("prune", &["--older-than", "0"]));
    assert_eq!(removed, "removed 1 rooms\n");
    assert_eq!(succeeds(&other.store("list", &[])), "0 rooms\n");
}

#[tokio::test]
async fn a_stranger_cannot_fill_the_disk_with_rooms() {
    let data = Data::new(&counter());
    let server = data.serve(&["--max-stored-rooms", "3", "--room-idle", "0"]);
    for room in ["a", "b", "c"] {
        let mut client = server.join(&format!("/{room}")).await;
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(1));
    }
    let (code, reason) = server.join("/d").await.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("its maximum of 3 rooms"), "{reason}");
    // Those that there are are served.
    let mut client = server.join("/a").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1), "another client");
}

#[tokio::test]
async fn what_a_room_did_until_it_failed_is_in_a_file() {
    let guest = counter().replace(
        "(local $n i32)",
        "(local $n i32) (if (i32.gt_u (local.get 2) (i32.const 5)) (then (unreachable)))",
    );
    let data = Data::new(&guest);
    let server = data.serve(&[]);
    let mut client = server.join("/lobby").await;
    for n in 1..=2 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    client.send("longer than five").await;
    assert_eq!(client.closed().await.0, 1011);
    server.until_logged("what room \"lobby\" did").await;
    let file = Path::new(&data.rooms()).join("faults/1.room");
    let (file, module) = (file.to_str().expect("UTF-8"), data.module.to_str());
    let replayed = succeeds(&tool(&["replay", file, module.expect("UTF-8")]));
    assert!(
        replayed.contains("sends \"longer than five\""),
        "{replayed}"
    );
    assert!(replayed.contains("the room has failed: "), "{replayed}");
    // The room itself has ended.
    let list = succeeds(&data.store("list", &[]));
    assert_eq!(list, "0 rooms\n");
}

#[tokio::test]
async fn nothing_is_kept_of_a_room_that_an_operator_closes() {
    let data = Data::new(&counter());
    let mut server = data.serve(&["--admin-listen", "127.0.0.1:0"]);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1));
    let path = "/rooms/lobby/close";
    let closed = server.ask(&server.admin, "POST", path, "").await;
    assert_eq!(closed.status, 200);
    assert_eq!(client.closed().await.0, 1001);
    server.signal("-TERM");
    assert!(server.exited().await.success());
    assert_eq!(succeeds(&data.store("list", &[])), "0 rooms\n");
    // It has not failed.
    assert!(!Path::new(&data.rooms()).join("faults").exists());
}

#[test]
fn what_is_no_store_is_refused_and_kept() {
    let data = Data::new(&counter());
    fails(&data.store("list", &[]), "there is no store");
    let rooms = Path::new(&data.rooms()).join("rooms.sqlite");
    data.folder.write("rooms/rooms.sqlite", "this is a text");
    fails(&data.store("list", &[]), "not the database of a store");
    let module = data.module.to_str().expect("UTF-8");
    let served = tool(&["serve", module, "--port", "0", "--data", &data.rooms()]);
    fails(&served, "not the database of a store");
    assert_eq!(
        std::fs::read_to_string(rooms).expect("it is there"),
        "this is a text"
    );
}

#[test]
fn a_module_that_cannot_be_saved_is_refused() {
    let data = Data::new(
        "(module (memory (export \"memory\") 1) (table 1 funcref)
            (func (export \"initialize\") (param i32 i32)
                (table.set (i32.const 0) (ref.null func)))
            (func (export \"connect\") (param i32)) (func (export \"disconnect\") (param i32))
            (func (export \"timer\")) (func (export \"message\") (param i32 i32 i32))
            (func (export \"binary\") (param i32 i32 i32))
            (func (export \"jam_malloc\") (param i32) (result i32) (i32.const 0))
            (func (export \"jam_free\") (param i32 i32)))",
    );
    let module = data.module.to_str().expect("UTF-8");
    // So says the check, which opens no folder.
    let checked = tool(&["check", module, "--data", &data.rooms()]);
    assert!(!checked.status.success());
    assert!(succeeds(&tool(&["check", module])).contains("ABI"));
    assert!(!Path::new(&data.rooms()).exists());
    let served = tool(&["serve", module, "--port", "0", "--data", &data.rooms()]);
    fails(&served, "table");
}

#[tokio::test]
async fn rooms_of_other_modules_are_refused_or_begin_anew() {
    let data = Data::new(&counter());
    let server = data.serve(&[]);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1));
    drop((client, server));
    let chat = bundled_path("chat-rust-0.4");
    let rooms = data.rooms();
    let server = Server::start(&chat, &["--data", &rooms]);
    let (code, reason) = server.join("/lobby").await.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.contains("another module"), "{reason}");
    drop(server);
    let server = Server::start(&chat, &["--data", &rooms, "--upgrade", "restart"]);
    let mut client = server.join("/lobby").await;
    assert!(!client.receive_text().await.is_empty());
}

/// [`counter`] for one count, which passes to another module; each message counts as much as `step`.
fn keeper(step: u32) -> String {
    let count = format!(
        "(i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const {step})))
         (call $send_binary (local.get 0) (i32.const 64) (i32.const 4))"
    );
    let exports = "(func (export \"stateroom_save\") (result i64) (i64.const 0x4000000004))
         (func (export \"stateroom_load\") (param i32 i32)
           (i32.store (i32.const 64) (i32.load (local.get 0))))";
    guest_0_2(ENV, &[("message", &count)], &format!("{SAY} {exports}"))
}

#[tokio::test]
async fn rooms_pass_their_state_to_a_new_version() {
    let hook = ["--upgrade", "hook", "--admin-listen", "127.0.0.1:0"];
    let data = Data::new(&keeper(1));
    let server = data.serve(&hook);
    let mut client = server.join("/lobby").await;
    for n in 1..=3 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    drop((client, server));
    data.folder.write("guest.wat", keeper(100));
    let server = data.serve(&hook);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(103));
    assert_eq!(upgrades(&server).await, [1.0, 0.0, 0.0]);
    drop((client, server));
    // What has neither export is served by the version that the room has.
    data.folder.write("guest.wat", counter());
    let server = data.serve(&hook);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(203));
    assert_eq!(upgrades(&server).await, [0.0, 1.0, 0.0]);
    let mut other = server.join("/hall").await;
    other.send("count").await;
    assert_eq!(number(&mut other).await, Some(1));
    drop((client, other, server));
    let server = data.serve(&["--upgrade", "hook-or-restart", hook[2], hook[3]]);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(1));
    assert_eq!(upgrades(&server).await, [0.0, 0.0, 1.0]);
}

/// For how many rooms the module has changed with their state, and not, and without their state.
async fn upgrades(server: &Server) -> [f64; 3] {
    let metrics = server.metrics().await;
    let count = |result| metrics[&format!("stateroom_room_upgrades_total{{result=\"{result}\"}}")];
    ["passed", "kept", "restarted"].map(count)
}

/// The only file of a folder.
fn only_file(folder: &Path) -> String {
    let mut files = std::fs::read_dir(folder).expect("a folder");
    let file = files.next().expect("a file").expect("a file").path();
    assert!(files.next().is_none(), "there is one");
    file.to_str().expect("UTF-8").into()
}

#[tokio::test]
async fn what_a_room_does_is_recorded_and_replayed_with_this_and_other_modules() {
    let data = Data::new(&keeper(1));
    let recordings = data.folder.0.join("recordings");
    let record = recordings.to_str().expect("UTF-8");
    let args = ["--record", record, "--admin-listen", "127.0.0.1:0"];
    let server = Server::start(&data.module, &args);
    let mut client = server.join("/lo%2Fbby").await;
    for n in 1..=3 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    let saved = data.folder.0.join("saved");
    let saved = saved.to_str().expect("UTF-8");
    let address = format!("http://{}", server.admin);
    succeeds(&tool(&["save", &address, "lo/bby", saved]));
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(4));
    // Whether it has recorded that its client has left is a race.
    drop((client, server));

    let file = only_file(&recordings);
    let module = data.module.to_str().expect("UTF-8");
    let replay = |args: &[&str]| tool(&[&["replay", &file, module], args].concat());
    let sent = |text: &str| -> Vec<u32> {
        let lines = text.lines().filter_map(|line| line.split_once(": 0x0"));
        lines
            .map(|(_, digits)| digits[..1].parse().expect("a digit"))
            .collect()
    };
    let all = succeeds(&replay(&[]));
    assert_eq!(sent(&all), [1, 2, 3, 4], "{all}");
    assert!(all.starts_with("room \"lo/bby\" after 0 events"), "{all}");
    let rest = succeeds(&replay(&["--from", saved]));
    assert_eq!(sent(&rest), [4], "{rest}");
    let some = succeeds(&replay(&["--until", "2"]));
    assert_eq!(sent(&some), [1], "{some}");

    // The same module does the same; another one does not.
    let same = succeeds(&replay(&["--module", module]));
    assert!(
        same.contains("\n0 of ") && same.ends_with("events have other outputs\n"),
        "{same}"
    );
    let other = data.folder.write("other.wat", keeper(2));
    let other = other.to_str().expect("UTF-8");
    let differs = replay(&["--module", other]);
    assert_eq!(differs.status.code(), Some(2));
    let text = String::from_utf8(differs.stdout).expect("UTF-8");
    assert!(
        text.contains("- to client 1: 0x01000000\n  + to client 1: 0x02000000"),
        "{text}"
    );
    assert!(
        text.contains("\n4 of ") && text.ends_with("events have other outputs\n"),
        "{text}"
    );
    // From a state on, which must pass.
    let differs = replay(&["--from", saved, "--module", other]);
    let text = String::from_utf8(differs.stdout).expect("UTF-8");
    assert!(
        text.contains("- to client 1: 0x04000000\n  + to client 1: 0x05000000"),
        "{text}"
    );
    let without = data.folder.write("without.wat", counter());
    let without = without.to_str().expect("UTF-8");
    fails(
        &replay(&["--from", saved, "--module", without]),
        "stateroom_load",
    );

    // What a crash leaves of a file.
    let bytes = std::fs::read(&file).expect("it is there");
    std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("it is written");
    let cut = succeeds(&replay(&[]));
    assert!(cut.ends_with("ends in the middle of an event\n"), "{cut}");
    std::fs::write(&file, &bytes[..9]).expect("it is written");
    fails(&replay(&[]), "not one of `serve --record`");
    let foreign = replay(&["--from", saved]);
    assert!(!foreign.status.success());
}

#[tokio::test]
async fn rooms_that_survive_are_recorded_from_where_they_go_on() {
    let data = Data::new(&keeper(1));
    let record = data.folder.0.join("recordings");
    let args = ["--record", record.to_str().expect("UTF-8")];
    let server = data.serve(&[]);
    let mut client = server.join("/lobby").await;
    for n in 1..=3 {
        client.send("count").await;
        assert_eq!(number(&mut client).await, Some(n));
    }
    // Not stopped: events since its snapshot are a part of it.
    drop((client, server));
    let server = data.serve(&args);
    let mut client = server.join("/lobby").await;
    client.send("count").await;
    assert_eq!(number(&mut client).await, Some(4));
    drop((client, server));
    let (file, module) = (only_file(&record), data.module.to_str().expect("UTF-8"));
    let text = succeeds(&tool(&["replay", &file, module]));
    for n in 1..=4 {
        assert!(
            text.contains(&format!("to client 1: 0x0{n}000000")) || n == 4,
            "{text}"
        );
    }
    assert!(text.contains("0x04000000"), "{text}");
}
