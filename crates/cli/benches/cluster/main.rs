//! What a cluster takes: how long clients wait when a node dies, says nothing, or gives its rooms away; when
//! thousands of rooms are back; what a gateway adds; and how many events so many nodes take.
//!
//! `NATS_SERVER=… cargo bench -p stateroom-wasmi --features cluster --bench cluster [-- NAME…]`, with the names
//! of [`MEASUREMENTS`]; Linux only. Three servers of NATS, which synchronise each write, and up to three nodes,
//! each a process, and the clients, in this one, share the machine. Clients are at nodes that stay. All rooms
//! are the echo of the SDK 0.4, durable.
#![allow(unreachable_pub, reason = "a benchmark exports nothing")]

#[path = "../../tests/cluster/machines.rs"]
#[allow(dead_code, reason = "shared with the test")]
mod machines;
#[path = "../../tests/cluster/network.rs"]
#[allow(dead_code, reason = "shared with the test")]
mod network;
mod places;
#[path = "../../tests/cluster/proxy.rs"]
mod proxy;
mod speakers;

use machines::{Machines, NODES, Setup, nats_program};
use places::Places;
use speakers::{Speaker, Speakers, flood};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Names, and what they say.
const MEASUREMENTS: [&str; 7] = [
    "failover",
    "silence",
    "handover",
    "drain",
    "restore",
    "gateway",
    "throughput",
];

/// How often things fail.
const ROUNDS: usize = 5;
/// Rooms that are spoken to.
const ROOMS: usize = 20;
/// Rooms of a node that has many.
const MANY: usize = 10_000;
/// Limits that allow so many.
const MANY_ARGS: &[&str] = &["--max-rooms", "100000", "--max-connections", "100000"];
/// The node that fails; the clients are at the first.
const FAILING: usize = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(program) = nats_program() else {
        return;
    };
    let names: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<_> = names.iter().filter(|name| !name.starts_with('-')).collect();
    for name in MEASUREMENTS {
        if !names.is_empty() && !names.contains(&&name.to_owned()) {
            continue;
        }
        match name {
            "failover" => failover(&program).await,
            "silence" => silence(&program).await,
            "handover" => handover(&program).await,
            "drain" => drain(&program).await,
            "restore" => restore(&program).await,
            "gateway" => gateway(&program).await,
            _ => throughput(&program).await,
        }
    }
}

async fn start(program: &Path, nodes: usize, args: &'static [&'static str]) -> (Machines, Places) {
    let rooms = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/rooms/wasm");
    let module = std::fs::read(rooms.join("echo-rust-0.4.wasm")).expect("it is built");
    let setup = Setup {
        can_be_cut: false,
        nodes,
        args,
        module,
    };
    let machines = Machines::start(program, setup).await;
    let places = Places::connect(&machines.nats_addresses()).await;
    places.wait_until_shared(nodes).await;
    (machines, places)
}

/// How long clients wait for a node whose process is killed.
async fn failover(program: &Path) {
    let (mut machines, places) = start(program, NODES, &[]).await;
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        places.wait_until_shared(NODES).await;
        let rooms = places.rooms_of(FAILING, ROOMS).await;
        let speakers = Speakers::start(machines.addresses()[0], rooms).await;
        let failed_at = Instant::now();
        machines.kill_node(FAILING);
        waits.extend(speakers.waits_since(failed_at).await);
        machines.start_node(FAILING).await;
    }
    print(
        "a process dies: clients of its rooms wait until the next reply",
        waits,
    );
}

/// The same for a node that says nothing any more.
async fn silence(program: &Path) {
    let (machines, places) = start(program, NODES, &[]).await;
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        places.wait_until_shared(NODES).await;
        let rooms = places.rooms_of(FAILING, ROOMS).await;
        let speakers = Speakers::start(machines.addresses()[0], rooms).await;
        let failed_at = Instant::now();
        machines.stop_node(FAILING);
        waits.extend(speakers.waits_since(failed_at).await);
        machines.continue_node(FAILING);
    }
    print(
        "a machine says nothing (--cluster-silence 300, the default): until the next reply",
        waits,
    );
}

/// How long clients wait while rooms are moved, one after the other and all of a node.
async fn handover(program: &Path) {
    let (machines, places) = start(program, NODES, &[]).await;
    let mut moved = Vec::new();
    let rooms = places.rooms_of(FAILING, ROOMS).await;
    for room in rooms {
        let speakers = Speakers::start(machines.addresses()[0], vec![room.clone()]).await;
        let began_at = Instant::now();
        places.move_to(&room, NODES - 1).await;
        moved.extend(speakers.waits_since(began_at).await);
    }
    print("a room is moved: the longest wait for a reply", moved);
    let (mut machines, places) = (machines, places);
    machines.drain_node(FAILING).await;
    machines.start_node(FAILING).await;
    places.wait_until_shared(NODES).await;
    let rooms = places.rooms_of(FAILING, ROOMS).await;
    let speakers = Speakers::start(machines.addresses()[0], rooms).await;
    let began_at = Instant::now();
    places.drain(FAILING).await;
    println!("a node was drained in {:?}", began_at.elapsed());
    print(
        "all rooms of a node are moved: the longest wait of each for a reply",
        speakers.waits_since(began_at).await,
    );
}

/// Opens rooms by a message to each.
async fn open(address: SocketAddr, rooms: &[String]) {
    let mut tasks = JoinSet::new();
    for some in rooms.chunks(rooms.len() / 50) {
        let some = some.to_vec();
        tasks.spawn(async move {
            for room in some {
                let mut speaker = Speaker::connect(address, &room).await;
                speaker.exchange().await.expect("it replies");
            }
        });
    }
    tasks.join_all().await;
}

/// How long clients wait while many rooms are moved.
async fn drain(program: &Path) {
    let (machines, places) = start(program, 2, MANY_ARGS).await;
    let address = machines.addresses()[0];
    let rooms = places.rooms_of(FAILING, MANY).await;
    open(address, &rooms).await;
    let some = rooms.into_iter().step_by(MANY / ROOMS).collect();
    let speakers = Speakers::start(address, some).await;
    let began_at = Instant::now();
    places.drain(FAILING).await;
    println!(
        "a node with 10,000 rooms was drained in {:?}",
        began_at.elapsed()
    );
    print(
        "all of them are moved: the longest wait of some for a reply",
        speakers.waits_since(began_at).await,
    );
}

/// When rooms of a dead node are back.
async fn restore(program: &Path) {
    const SPOKEN_TO: usize = 100;
    /// Counting them takes the node some milliseconds.
    const INTERVAL: Duration = Duration::from_millis(100);
    let (mut machines, places) = start(program, 2, MANY_ARGS).await;
    let address = machines.addresses()[0];
    let rooms = places.rooms_of(FAILING, MANY).await;
    // What they were told is in the log, and in no snapshot.
    open(address, &rooms).await;
    let died_at = Instant::now();
    machines.kill_node(FAILING);
    let time_before = machines.processor_time();
    let mut tasks = JoinSet::new();
    for room in rooms.iter().step_by(MANY / SPOKEN_TO) {
        let room = room.clone();
        tasks.spawn(async move {
            let mut speaker = Speaker::connect(address, &room).await;
            speaker.exchange().await.expect("it replies");
            died_at.elapsed()
        });
    }
    let waits = tasks.join_all().await;
    print(
        "a node with 10,000 rooms dies: those that are spoken to at once reply after",
        waits,
    );
    // Some were moved there before because of their load, and are not open before somebody asks for them.
    let (mut count, mut changed_at) = (0, Instant::now());
    let mut time = machines.processor_time();
    while changed_at.elapsed() < Duration::from_secs(2) {
        let open = places.rooms_at(address).await;
        if open != count {
            (count, changed_at) = (open, Instant::now());
            time = machines.processor_time();
        }
        sleep(INTERVAL).await;
    }
    println!(
        "all that were open, {count}, are back after {:?}, with {:?} of the node's processor time and {:?} of NATS's",
        changed_at - died_at,
        time.nodes - time_before.nodes,
        time.nats - time_before.nats,
    );
}

/// What a gateway adds.
async fn gateway(program: &Path) {
    let durabilities: [(&str, &'static [&'static str]); 2] = [
        ("durable", &["--durability", "durable"]),
        ("memory", &["--durability", "memory"]),
    ];
    for (durability, args) in durabilities {
        let (machines, places) = start(program, NODES, args).await;
        let room = places.rooms_of(FAILING, 1).await.remove(0);
        for (place, node) in [("its own node", FAILING), ("another node", 0)] {
            let mut speaker = Speaker::connect(machines.addresses()[node], &room).await;
            let mut latencies = Vec::new();
            for _ in 0..1_000 {
                latencies.push(speaker.exchange().await.expect("it replies").took());
            }
            print(
                &format!("latency of a {durability} room through {place}"),
                latencies,
            );
        }
    }
}

/// Events that so many nodes take.
async fn throughput(program: &Path) {
    const TIME: Duration = Duration::from_secs(3);
    for nodes in 1..=NODES {
        let (machines, places) = start(program, nodes, &[]).await;
        let mut tasks = JoinSet::new();
        let time_before = machines.processor_time();
        for node in 0..nodes {
            for room in places.rooms_of(node, 60 / nodes).await {
                tasks.spawn(flood(machines.addresses()[node], room, TIME));
            }
        }
        let events: usize = tasks.join_all().await.into_iter().sum();
        let time = machines.processor_time();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
        println!(
            "{nodes} nodes: {:.0} durable events of 200 bytes a second; for each {:.0} µs of the nodes' processor \
             time and {:.0} µs of NATS's",
            events as f64 / TIME.as_secs_f64(),
            each(time.nodes - time_before.nodes),
            each(time.nats - time_before.nats),
        );
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what}: p50 {:.1?}, p99 {:.1?}, max {:.1?} (of {})",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}
