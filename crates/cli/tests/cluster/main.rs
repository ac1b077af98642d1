//! Three nodes and three servers of NATS on one machine, while processes are killed, stopped, cut off and
//! drained, and clients count: nothing is lost, nothing is counted twice, and no socket ends but with the
//! process that it is connected to.
//!
//! Needs `NATS_SERVER`, or `nats-server` on the path, or else it is skipped; and root, or else nothing is cut by
//! the network. `FAULTS` has how many things go wrong, `MINUTES` for how long in place of that, `ROOMS` how many
//! rooms there are, and `GONE` for how many seconds NATS is gone at least. The seed of what happens is
//! printed, and `TEST_SEED` repeats it, though not its timing. `WITHOUT` names faults that are left out.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../it/board.rs"]
#[allow(dead_code, reason = "shared with the tests of `attach`")]
mod board;
mod clients;
mod leaves;
#[allow(dead_code, reason = "shared with the benchmark")]
mod machines;
mod network;
mod poison;
mod proxy;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;

use self::{
    clients::{Population, Totals},
    machines::{Machines, NODES, Setup, TIMEOUT, nats_program},
};
use crate::support::{ENV, Random, SAY, guest_0_2};
use std::{future::Future, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// Held by a test: what its processes need is too much for two at a time, and ports would be taken twice.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits for an event, and fails after [`TIMEOUT`].
async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(TIMEOUT, future).await;
    done.unwrap_or_else(|_| panic!("timed out: {what}"))
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillNode,
    /// The process is there, but does nothing.
    StopNode,
    /// It cannot reach NATS, but clients and other nodes can reach it.
    CutOff,
    /// SIGTERM: it gives its rooms away, and ends.
    Drain,
    KillNats,
    /// A server of NATS does nothing for moments, as with a slow disk.
    StopNats,
    /// All servers of NATS are killed.
    NatsGone,
    /// The machine, with a node and a server of NATS, reaches no other, but clients reach it.
    Partition,
}

/// All that are possible but those that `WITHOUT` names.
fn kinds(machines: &Machines) -> Vec<Fault> {
    let without = std::env::var("WITHOUT").unwrap_or_default();
    let mut kinds = vec![
        Fault::KillNode,
        Fault::StopNode,
        Fault::CutOff,
        Fault::Drain,
        Fault::KillNats,
        Fault::Partition,
        Fault::StopNats,
        Fault::NatsGone,
    ];
    kinds.retain(|kind| *kind != Fault::Partition || machines.network.has_links());
    kinds.retain(|kind| !without.split(',').any(|name| name == format!("{kind:?}")));
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_or_counted_twice_whatever_goes_wrong() {
    let Some(program) = nats_program() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let (faults, rooms) = (number("FAULTS", 10), number("ROOMS", 100));
    let minutes = number("MINUTES", 0) as u64;
    let gone = Duration::from_secs(number("GONE", 0) as u64);
    let mut random = Random::new();
    let setup = Setup {
        can_be_cut: true,
        nodes: NODES,
        args: &[
            "--cluster-silence",
            "500",
            // On a busy machine NATS takes seconds to elect a leader, several times in a row.
            "--owner-timeout",
            "60",
        ],
        module: counter().into_bytes(),
    };
    let mut machines = Machines::start(&program, setup).await;
    let population = Population::start(rooms, machines.addresses(), random.next());
    population.wait_for_progress().await;
    let kinds = kinds(&machines);
    let mut done = std::collections::BTreeMap::<Fault, usize>::new();
    let began_at = Instant::now();
    for at in 0.. {
        let is_over = match minutes {
            0 => at >= faults,
            _ => began_at.elapsed() >= Duration::from_secs(60 * minutes),
        };
        if is_over {
            break;
        }
        // Each of them at least once, in a run that is long enough.
        let kind = match kinds.get(at) {
            Some(kind) => *kind,
            None => kinds[random.below(kinds.len())],
        };
        let machine = random.below(NODES);
        let length = Duration::from_millis(100 + random.below(2_500) as u64);
        println!(
            "{:?}: {kind:?} {machine} for {length:?}",
            began_at.elapsed()
        );
        *done.entry(kind).or_default() += 1;
        match kind {
            Fault::KillNode => {
                population.node_ends(machine);
                machines.kill_node(machine);
                population.node_has_ended(machine);
                sleep(length).await;
                machines.start_node(machine).await;
            }
            Fault::StopNode => {
                machines.stop_node(machine);
                sleep(length).await;
                machines.continue_node(machine);
            }
            Fault::CutOff => {
                machines.cut_off(machine, true);
                sleep(length).await;
                machines.cut_off(machine, false);
            }
            Fault::Drain => {
                population.node_ends(machine);
                machines.drain_node(machine).await;
                population.node_has_ended(machine);
                sleep(length / 4).await;
                machines.start_node(machine).await;
            }
            Fault::KillNats => {
                machines.kill_nats(machine);
                sleep(length).await;
                machines.start_nats(machine).await;
            }
            Fault::StopNats => {
                let until = Instant::now() + length;
                while Instant::now() < until {
                    machines.stop_nats(machine);
                    sleep(Duration::from_millis(50 + random.below(200) as u64)).await;
                    machines.continue_nats(machine);
                    sleep(Duration::from_millis(random.below(50) as u64)).await;
                }
            }
            Fault::NatsGone => {
                for server in 0..NODES {
                    machines.kill_nats(server);
                }
                sleep(gone.max(3 * length)).await;
                machines.start_all_nats().await;
            }
            Fault::Partition => {
                machines.network.cut(machine, true);
                sleep(2 * length).await;
                machines.network.cut(machine, false);
            }
        }
        // Sometimes the next fault comes while this one is still being dealt with.
        if random.below(3) > 0 {
            population.wait_for_progress().await;
        }
    }
    population.wait_for_progress().await;
    let Totals {
        messages,
        reconnects,
        longest_wait,
    } = population.finish().await;
    println!(
        "{done:?} in {:?}: {messages} messages of {rooms} rooms, {reconnects} connections that ended with \
         their node; the longest wait for a reply was {longest_wait:?}",
        began_at.elapsed(),
    );
}

/// A guest that counts what each of its clients 1 to 1,000 has said, and what all have; it replies to each
/// with both numbers.
fn counter() -> String {
    counter_with("", "", "")
}

/// The same with further imports and functions, which does something else with each message first.
fn counter_with(imports: &str, first: &str, more: &str) -> String {
    let count = "(local $n i32)
        (local.set $n (i32.add (i32.const 8192) (i32.mul (local.get 0) (i32.const 4))))
        (i32.store (local.get $n) (i32.add (i32.load (local.get $n)) (i32.const 1)))
        (i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1)))
        (i32.store (i32.const 8184) (i32.load (local.get $n)))
        (i32.store (i32.const 8188) (i32.load (i32.const 8192)))
        (call $send_binary (local.get 0) (i32.const 8184) (i32.const 8))";
    let (declarations, count) = count.split_once('\n').expect("several lines");
    let message = format!("{declarations} {first} {count}");
    let (imports, more) = (format!("{imports} {ENV}"), format!("{SAY} {more}"));
    guest_0_2(&imports, &[("message", &message)], &more)
}
