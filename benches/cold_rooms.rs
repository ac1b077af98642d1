//! What an event costs in a room that has left the processor's caches: `cargo bench --bench cold_rooms`
//! times events that are given by turns to more and more rooms.
//!
//! With `-- --touched` it counts instead what one event touches of its room: cache lines of 64 bytes
//! and pages of 4 KiB, by what they belong to. The events run under lackey (Debian's `valgrind`), which
//! prints each access to memory; those that an event of another room makes as well are not counted. It
//! prints the table of `docs/costs.md`.

use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Instant, Limits, ManualClock, Module, OutputMessage, Room,
    RoomKey, RoomOptions, SendError, Transport,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    env,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    mem,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Instant as Time,
};

const GUESTS: [(&str, &[u8]); 2] = [
    (
        "C echo",
        include_bytes!("../examples/rooms/wasm/echo-c.wasm"),
    ),
    (
        "SDK 0.4 echo",
        include_bytes!("../examples/rooms/wasm/echo-rust-0.4.wasm"),
    ),
];
const DRIVERS: [&str; 2] = ["Room", "Host"];
const CLIENT: ClientId = ClientId(1);
const NOW: Instant = Instant::from_millis(1);

/// How many rooms have events by turns. The first is the hot one.
const COUNTS: [usize; 4] = [1, 50, 1_000, 5_000];
const ROUNDS: usize = 21;

/// How many rooms there are when accesses are traced. Every eighth is looked at.
const TRACED_ROOMS: usize = 48;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--under-lackey", guest, driver] => {
            trace(index(guest), index(driver));
        }
        _ if arguments.iter().any(|argument| argument == "--touched") => print_touched(),
        _ => print_times(),
    }
}

fn index(argument: &str) -> usize {
    argument.parse().expect("an index")
}

/// Rooms of one module, driven directly or by a host.
enum Rooms {
    #[expect(
        clippy::vec_box,
        reason = "each is an allocation of its own, as in a host"
    )]
    Direct(Vec<Box<Room>>),
    Hosted(Box<Host<ManualClock, NullTransport>>, Vec<RoomKey>),
}

struct NullTransport;

impl Transport for NullTransport {
    type Error = Infallible;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        black_box(message);
        Ok(())
    }
}

impl Rooms {
    fn new(driver: usize) -> Self {
        match DRIVERS[driver] {
            "Host" => Self::Hosted(
                Box::new(Host::new(ManualClock::new(), NullTransport)),
                Vec::new(),
            ),
            _ => Self::Direct(Vec::new()),
        }
    }

    fn open(&mut self, module: &Module, id: &str) {
        match self {
            Self::Direct(rooms) => {
                let room = Room::new(module, id, RoomOptions::new()).expect("the room opens");
                rooms.push(Box::new(room));
                send_outputs(rooms.last_mut().expect("it was pushed"));
            }
            Self::Hosted(host, keys) => {
                keys.push(host.open(id, module).expect("the room opens"));
                host.poll(Budget::UNLIMITED);
            }
        }
    }

    fn connect(&mut self, room: usize) {
        self.handle(room, Event::Connect(CLIENT));
    }

    fn message(&mut self, room: usize) {
        self.handle(room, Event::message(CLIENT, "0123456789abcdef"));
    }

    fn handle(&mut self, room: usize, event: Event<'_>) {
        match self {
            Self::Direct(rooms) => {
                let room = &mut rooms[room];
                room.handle_event(NOW, event).expect("the room is idle");
                send_outputs(room);
            }
            Self::Hosted(host, keys) => {
                host.enqueue(keys[room], event).expect("the room is idle");
                host.poll(Budget::UNLIMITED);
            }
        }
    }
}

/// A driver's loop without a host.
fn send_outputs(room: &mut Room) {
    loop {
        while let Some(output) = room.poll_output() {
            black_box(output);
        }
        if !room.has_work(NOW) {
            break;
        }
        room.resume(NOW);
    }
    black_box(room.poll_timeout());
}

fn print_times() {
    for (name, wasm) in GUESTS {
        for (driver, by) in DRIVERS.iter().enumerate() {
            let module = Module::load(wasm, &Limits::default()).expect("the module loads");
            let mut rooms = Rooms::new(driver);
            let most = COUNTS[COUNTS.len() - 1];
            for room in 0..most {
                rooms.open(&module, &room.to_string());
                rooms.connect(room);
                rooms.message(room);
            }
            let mut times = COUNTS.map(|_| Vec::new());
            for _ in 0..ROUNDS {
                for (count, times) in COUNTS.into_iter().zip(&mut times) {
                    let start = Time::now();
                    for event in 0..most {
                        rooms.message(event % count);
                    }
                    times.push(start.elapsed().as_nanos() as f64 / most as f64);
                }
            }
            for (count, cold) in COUNTS.iter().zip(&times) {
                let multiples = cold.iter().zip(&times[0]).map(|(cold, hot)| cold / hot);
                println!(
                    "{name} by {by}, {count} rooms: {:.0} ns, {:.2}x",
                    median(cold.iter().copied()),
                    median(multiples),
                );
            }
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a room's lines belong to, in the order of the table.
const OWNERS: [&str; 5] = [
    "the guest's memory",
    "the interpreter's store and instance, and the host's state of the guest",
    "`Room`",
    "payloads that wait, and the list of clients",
    "the table that the room is found in",
];

/// Lines and pages that an event touches of its room, by owner; the mean of several rooms.
#[derive(Default)]
struct Touched {
    lines: [f64; OWNERS.len()],
    pages: [f64; OWNERS.len()],
    all_pages: f64,
}

fn print_touched() {
    let mut columns = Vec::new();
    for (guest, (name, _)) in GUESTS.iter().enumerate() {
        for (driver, by) in DRIVERS.iter().enumerate() {
            columns.push((format!("{name} by `{by}`"), touched(guest, driver)));
        }
    }
    let row = |name: &str, cell: &dyn Fn(&Touched) -> (f64, f64)| {
        print!("| {name} |");
        for (_, touched) in &columns {
            let (lines, pages) = cell(touched);
            print!(" {lines:.1} ({pages:.1}) |");
        }
        println!();
    };
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    println!(
        "| | {} |\n|---|{}",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for (at, owner) in OWNERS.iter().enumerate() {
        row(owner, &|touched| (touched.lines[at], touched.pages[at]));
    }
    row("all", &|touched| {
        (touched.lines.iter().sum(), touched.all_pages)
    });
}

/// Runs events in another process, under lackey, and reads what they touched.
fn touched(guest: usize, driver: usize) -> Touched {
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--basic-counts=no"])
        .arg("--log-fd=1")
        .arg(env::current_exe().expect("this program"))
        .args(["--under-lackey", &guest.to_string(), &driver.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let (sender, mark) = mpsc::channel();
    let blocks = thread::spawn(move || {
        let mut line = String::new();
        stderr.read_line(&mut line).expect("it tells its mark");
        let mark = u64::from_str_radix(line.trim(), 16).expect("an address");
        sender.send(mark).expect("somebody waits for it");
        // It waits for that, so that no store to the mark is missed.
        stdin.write_all(b"\n").expect("it reads");
        let mut rest = String::new();
        stderr
            .read_to_string(&mut rest)
            .expect("it tells its blocks");
        rest.lines().map(Block::parse).collect::<Vec<_>>()
    });
    // What comes between two stores to the mark are the accesses of one event.
    let mut marked = None;
    let mut events: Vec<HashSet<u64>> = Vec::new();
    let trace = BufReader::with_capacity(1 << 20, child.stdout.take().expect("it is piped"));
    for line in trace.lines().map_while(Result::ok) {
        if marked.is_none() {
            marked = mark.try_recv().ok();
        }
        // " S 04222c80,8", and " L" and " M" likewise; instructions are "I  04012345,3".
        let Some((at, size)) = line.get(3..).and_then(|rest| rest.split_once(',')) else {
            continue;
        };
        let (Ok(at), Ok(size)) = (u64::from_str_radix(at.trim(), 16), size.parse::<u64>()) else {
            continue;
        };
        if line.starts_with(" S") && Some(at) == marked {
            events.push(HashSet::new());
        } else if !line.starts_with('I')
            && let Some(event) = events.last_mut()
        {
            event.extend(at / LINE..=(at + size - 1) / LINE);
        }
    }
    assert!(child.wait().expect("it ends").success(), "the child failed");
    let blocks = blocks.join().expect("the reader does not panic");
    summary(&events, &blocks)
}

const LINE: u64 = 64;
const PAGE: u64 = 4 << 10;

/// The first event is another room's, and after the last nothing is counted.
fn summary(events: &[HashSet<u64>], blocks: &[Block]) -> Touched {
    let [shared, rooms @ .., _] = events else {
        panic!("lackey prints accesses")
    };
    let mut sum = Touched::default();
    let share = 1.0 / rooms.len() as f64;
    for room in rooms {
        let mut by_owner: BTreeMap<usize, HashSet<u64>> = BTreeMap::new();
        for line in room.difference(shared) {
            let at = line * LINE;
            let owner = blocks.iter().find(|block| block.overlaps(at, LINE));
            let owner = owner.map_or(OWNERS.len() - 1, |block| block.owner);
            sum.lines[owner] += share;
            by_owner.entry(owner).or_default().insert(at / PAGE);
        }
        for (owner, pages) in &by_owner {
            sum.pages[*owner] += share * pages.len() as f64;
        }
        let pages: HashSet<u64> = by_owner.into_values().flatten().collect();
        sum.all_pages += share * pages.len() as f64;
    }
    sum
}

/// An allocation of a room that is looked at.
struct Block {
    at: u64,
    size: u64,
    owner: usize,
}

impl Block {
    fn parse(line: &str) -> Self {
        let mut numbers = line
            .split(' ')
            .map(|number| number.parse::<u64>().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        let (at, size, is_of_event) = (next(), next(), next() == 1);
        // A guest's memory is at least a page of WebAssembly's, which nothing else is.
        let owner = if size >= 64 << 10 {
            0
        } else if size == size_of::<Room>() as u64 {
            2
        } else if is_of_event {
            3
        } else {
            1
        };
        Self { at, size, owner }
    }

    const fn overlaps(&self, at: u64, len: u64) -> bool {
        self.at < at + len && at < self.at + self.size
    }
}

/// Lackey prints when this is written to.
static MARK: AtomicUsize = AtomicUsize::new(0);

/// The part of [`touched`] that runs under lackey.
fn trace(guest: usize, driver: usize) {
    eprintln!("{:x}", &raw const MARK as usize);
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("the other process goes on");
    let module = Module::load(GUESTS[guest].1, &Limits::default()).expect("the module loads");
    let mut rooms = Rooms::new(driver);
    let is_measured = |room: usize| room % 8 == 7;
    for room in 0..TRACED_ROOMS {
        recording(is_measured(room), OPENING, || {
            rooms.open(&module, &room.to_string());
        });
        recording(is_measured(room), EVENT, || rooms.connect(room));
    }
    // Several, until buffers have the size that they keep.
    for _ in 0..4 {
        for room in 0..TRACED_ROOMS {
            recording(is_measured(room), EVENT, || rooms.message(room));
        }
    }
    let measured = (0..TRACED_ROOMS).filter(|room| is_measured(*room));
    for room in [0].into_iter().chain(measured) {
        MARK.store(room, Relaxed);
        rooms.message(room);
    }
    MARK.store(TRACED_ROOMS, Relaxed);
    for (at, (size, phase)) in BLOCKS.iter().zip(SIZES.iter().zip(&PHASES)) {
        let (at, size, phase) = (at.load(Relaxed), size.load(Relaxed), phase.load(Relaxed));
        if at != 0 {
            eprintln!("{at} {size} {}", u8::from(phase == EVENT));
        }
    }
    mem::forget(rooms);
}

const OFF: usize = 0;
const OPENING: usize = 1;
const EVENT: usize = 2;

/// Records what is allocated meanwhile.
fn recording(is_on: bool, phase: usize, work: impl FnOnce()) {
    PHASE.store(if is_on { phase } else { OFF }, Relaxed);
    work();
    PHASE.store(OFF, Relaxed);
}

const MAX_BLOCKS: usize = 1 << 14;
static PHASE: AtomicUsize = AtomicUsize::new(OFF);
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The addresses, sizes and phases of the recorded allocations; freed ones have the address 0.
static BLOCKS: [AtomicUsize; MAX_BLOCKS] = [const { AtomicUsize::new(0) }; MAX_BLOCKS];
static SIZES: [AtomicUsize; MAX_BLOCKS] = [const { AtomicUsize::new(0) }; MAX_BLOCKS];
static PHASES: [AtomicUsize; MAX_BLOCKS] = [const { AtomicUsize::new(0) }; MAX_BLOCKS];

struct Recorder;

#[global_allocator]
static RECORDER: Recorder = Recorder;

impl Recorder {
    fn record(at: *mut u8, size: usize) -> *mut u8 {
        let phase = PHASE.load(Relaxed);
        if phase != OFF {
            let next = NEXT.fetch_add(1, Relaxed);
            BLOCKS[next].store(at as usize, Relaxed);
            SIZES[next].store(size, Relaxed);
            PHASES[next].store(phase, Relaxed);
        }
        at
    }
}

// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract, which is the same.
        Self::record(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::record(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if PHASE.load(Relaxed) != OFF {
            let recorded = BLOCKS[..NEXT.load(Relaxed)].iter().rev();
            let mut recorded = recorded.filter(|block| block.load(Relaxed) == at as usize);
            if let Some(block) = recorded.next() {
                block.store(0, Relaxed);
            }
        }
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}
