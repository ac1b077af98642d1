//! What it costs to make events durable: processor time, latency and bytes written, beside a file that is
//! only appended to and synchronised, and beside nothing.
//!
//! `cargo bench -p stateroom-wasmi-store [-- SECONDS [EVENTS_PER_SECOND]]`; Linux only. Two threads write a
//! batch of events of 200 bytes each millisecond, as workers do.

use stateroom_wasmi_server::journal::{
    Batch, Done, Journal, RoomNumber, RoomSnapshot, RoomWrite, Stored,
};
use stateroom_wasmi_store::Store;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

const THREADS: u64 = 2;
const EVENT_BYTES: usize = 200;
const ROOMS: u64 = 50;
/// Events of a room after which it is saved, as the server does for rooms of the SDK.
const SAVED_AFTER: u64 = 1000;
const SNAPSHOT_BYTES: usize = 400;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let seconds = arguments.first().copied().unwrap_or(3);
    let rate = arguments.get(1).copied().unwrap_or(20_000);
    println!("{rate} events of {EVENT_BYTES} bytes a second, in {THREADS} threads, {seconds} s");
    for _ in 0..ROUNDS {
        let folder = folder("store");
        let store: Arc<dyn Sink> = Arc::new(Store::open(&folder).expect("it opens"));
        measure("store", &folder, &store, seconds, rate);
        drop(store);
        let _ = fs::remove_dir_all(&folder);
        let folder = self::folder("nothing");
        let nothing: Arc<dyn Sink> = Arc::new(Nothing);
        measure("nothing", &folder, &nothing, seconds, rate);
        let _ = fs::remove_dir_all(&folder);
        let folder = self::folder("file");
        let file: Arc<dyn Sink> = Arc::new(AppendedFile::new(&folder));
        measure("appended file", &folder, &file, seconds, rate);
        drop(file);
        let _ = fs::remove_dir_all(&folder);
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.join(format!("journal-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Where batches go.
trait Sink: Send + Sync {
    fn number(&self, room: u64) -> RoomNumber;
    fn write(&self, batch: Batch, done: Done<()>);
}

impl Sink for Store {
    fn number(&self, room: u64) -> RoomNumber {
        let (send, receive) = mpsc::channel();
        let done = move |stored| drop(send.send(stored));
        self.load(&room.to_string(), Box::new(done));
        match receive.recv().expect("it calls back") {
            Ok(Stored::New(number)) => number,
            other => panic!("the store is new: {other:?}"),
        }
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        Journal::write(self, batch, done);
    }
}

/// A file that is only appended to, with the same grouping.
struct AppendedFile(Mutex<mpsc::Sender<(Batch, Done<()>)>>);

impl AppendedFile {
    fn new(folder: &Path) -> Self {
        let mut file = File::create(folder.join("log")).expect("a file");
        let (batches, receiver) = mpsc::channel::<(Batch, Done<()>)>();
        thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let mut group = vec![first];
                group.extend(receiver.try_iter());
                for (batch, _) in &group {
                    file.write_all(batch.events()).expect("it is written");
                }
                file.sync_data().expect("it is synchronised");
                for (_, done) in group {
                    done(Ok(()));
                }
            }
        });
        Self(Mutex::new(batches))
    }
}

impl Sink for AppendedFile {
    fn number(&self, room: u64) -> RoomNumber {
        RoomNumber(room + 1)
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        let batches = self.0.lock().expect("not poisoned");
        batches.send((batch, done)).expect("the thread runs");
    }
}

/// What the threads cost by themselves.
struct Nothing;

impl Sink for Nothing {
    fn number(&self, room: u64) -> RoomNumber {
        RoomNumber(room + 1)
    }

    fn write(&self, _: Batch, done: Done<()>) {
        done(Ok(()));
    }
}

fn measure(name: &str, folder: &Path, sink: &Arc<dyn Sink>, seconds: u64, rate: u64) {
    let numbers: Vec<_> = (0..ROOMS * THREADS).map(|room| sink.number(room)).collect();
    let (cpu, written) = (processor_time(), bytes_written());
    let started = Instant::now();
    let mut latencies: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = numbers
            .chunks(ROOMS as usize)
            .map(|numbers| scope.spawn(|| write(&**sink, numbers, seconds, rate / THREADS)))
            .collect();
        let latencies = threads
            .into_iter()
            .flat_map(|it| it.join().expect("no panic"));
        latencies.collect()
    });
    let took = started.elapsed();
    let (cpu, written) = (processor_time() - cpu, bytes_written() - written);
    latencies.sort_unstable();
    let events = seconds * rate;
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100];
    println!(
        "{name}: {:.0} events/s, {:.2} µs of processor time and {:.0} bytes written for each, \
         p50 {:.1?}, p99 {:.1?}, {} KiB on disk",
        events as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / events as f64,
        written as f64 / events as f64,
        percentile(50),
        percentile(99),
        size(folder) >> 10,
    );
}

/// Writes a batch each millisecond; returns how long each took.
fn write(sink: &dyn Sink, numbers: &[RoomNumber], seconds: u64, rate: u64) -> Vec<Duration> {
    let (send, receive) = mpsc::channel();
    let started = Instant::now();
    let mut next = vec![0_u64; numbers.len()];
    let event = [7; EVENT_BYTES];
    let (mut batches, mut written) = (0, 0);
    for millisecond in 1..=seconds * 1000 {
        let due = rate * millisecond / 1000;
        let mut batch = Batch::default();
        while written < due {
            let room = (written % numbers.len() as u64) as usize;
            batch.log(numbers[room], next[room], &event);
            next[room] += 1;
            written += 1;
            if next[room] % SAVED_AFTER == 1 {
                let snapshot = RoomSnapshot {
                    events: next[room],
                    room: vec![1; SNAPSHOT_BYTES],
                    clients: Vec::new(),
                    wake_at: None,
                };
                let id = numbers[room].0.to_string().into();
                batch.write(numbers[room], RoomWrite::Snapshot { id, snapshot });
            }
        }
        let (send, submitted) = (send.clone(), Instant::now());
        let done = move |written: Result<_, _>| {
            written.expect("it is written");
            let _ = send.send(submitted.elapsed());
        };
        sink.write(batch, Box::new(done));
        batches += 1;
        let next_batch = Duration::from_millis(millisecond);
        thread::sleep(next_batch.saturating_sub(started.elapsed()));
    }
    receive.iter().take(batches).collect()
}

/// Of this process, in user mode and in the kernel.
fn processor_time() -> Duration {
    /// Ticks of the kernel's accounting in a second.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

fn bytes_written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
