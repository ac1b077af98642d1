//! Compile-time properties of the public API: which types are `Send` and `Sync`, their sizes, and
//! which names exist.

use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Clock, ClosedRoom, Compilation, EngineError, Escaped, Event,
    EventError, EventHeader, Fault, FaultCause, FaultPolicy, HeapEstimate, Host, HostLimits,
    Instant, Limits, LimitsError, LoadError, LoadOptions, ManualClock, MessagePayload,
    MessageRecipient, Module, OpenError, Output, OutputMessage, OwnedEvent, OwnedPayload,
    RecordingTransport, Room, RoomKey, RoomOptions, RoomStats, SendError, SentMessage, Transport,
    Trap, UnknownRoom, WithSources,
    abi::{AbiProblem, AbiVersion, ExternKind, Signature, ValueType},
    driver::fixed_capacity::{FixedEvents, FixedPayloadQueue, FixedTransport, QueueError},
};
use std::{error::Error, fmt::Debug, time::Duration};

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
fn debug<T: Debug>() {}
fn error<T: Error + Send + Sync + 'static>() {}

#[test]
fn modules_are_sync_and_rooms_and_hosts_are_send() {
    const {
        send::<Module>();
        sync::<Module>();
        send::<Room>();
        send::<Host<ManualClock, RecordingTransport>>();
        send::<FixedTransport<1, 1>>();
        send::<FixedEvents<1, 1>>();
    }
}

#[test]
fn errors_are_std_errors_that_are_send_and_sync() {
    error::<LoadError>();
    error::<LimitsError>();
    error::<EngineError>();
    error::<OpenError>();
    error::<EventError>();
    error::<UnknownRoom>();
    error::<Fault>();
    error::<QueueError>();
}

#[test]
fn public_types_implement_debug() {
    debug::<(Module, Room, Host<ManualClock, RecordingTransport>)>();
    debug::<(
        Limits,
        HostLimits,
        LoadOptions,
        RoomOptions,
        Compilation,
        Backoff,
        FaultPolicy,
    )>();
    debug::<(
        Event<'_>,
        EventHeader,
        OwnedEvent,
        Output<'_>,
        OutputMessage<'_>,
    )>();
    debug::<(
        MessagePayload<'_>,
        OwnedPayload,
        MessageRecipient,
        ClientId,
        RoomKey,
    )>();
    debug::<(
        Budget,
        ClosedRoom,
        RoomStats,
        Instant,
        SentMessage,
        SendError<()>,
        HeapEstimate,
    )>();
    debug::<(
        FaultCause,
        Trap,
        AbiProblem,
        AbiVersion,
        ExternKind,
        Signature,
        ValueType,
    )>();
    debug::<FixedPayloadQueue<u8, 1, 1>>();
    debug::<(Escaped<&str>, WithSources<'_>)>();
}

/// Types of which a program has thousands.
#[test]
fn numerous_types_are_small() {
    assert!(size_of::<Module>() <= size_of::<usize>());
    assert!(size_of::<RoomKey>() <= 8);
    assert!(size_of::<Instant>() <= 8);
    assert!(size_of::<Event<'_>>() <= 4 * size_of::<usize>());
    assert!(size_of::<Output<'_>>() <= 5 * size_of::<usize>());
    assert!(size_of::<OwnedEvent>() <= 5 * size_of::<usize>());
    assert!(size_of::<Room>() <= 1024, "{}", size_of::<Room>());
}

#[test]
fn clocks_and_transports_work_by_reference_and_boxed() {
    fn clock(_: impl Clock) {}
    fn transport(_: impl Transport) {}
    let mut manual = ManualClock::new();
    clock(&manual);
    clock(&mut manual);
    clock(Box::new(ManualClock::new()) as Box<dyn Clock>);
    transport(&mut RecordingTransport::new());
    transport(Box::new(RecordingTransport::new()) as Box<dyn Transport<Error = &'static str>>);
}

#[test]
fn options_can_be_built_in_constants() {
    const LIMITS: Limits = Limits::small().max_memory_bytes(4096).fuel_per_slice(500);
    const ROOM: RoomOptions = RoomOptions::new()
        .seed(7)
        .unix_time_at_zero(Duration::from_secs(1))
        .on_fault(FaultPolicy::Restart(Backoff::new().restarts(1)));
    const HOST: HostLimits = HostLimits::new().max_rooms(3);
    const LOAD: LoadOptions = LoadOptions::new().compilation(Compilation::Eager);
    assert_eq!(
        (LIMITS.max_memory_bytes, LIMITS.fuel_per_slice),
        (4096, 500)
    );
    assert_eq!(LIMITS.max_clients, Limits::small().max_clients);
    assert_eq!((ROOM.seed, HOST.max_rooms), (Some(7), 3));
    assert_eq!(LOAD.compilation, Compilation::Eager);
    assert_eq!(Limits::new(), Limits::default());
    assert_eq!(RoomOptions::new(), RoomOptions::default());
}

#[test]
fn a_room_key_round_trips_through_bits() {
    let key = RoomKey::from_bits(u64::MAX);
    assert_eq!(RoomKey::from_bits(key.to_bits()), key);
}

#[test]
fn instants_convert_to_units() {
    let at = Instant::from_micros(1_234_567);
    assert_eq!(
        (at.as_nanos(), at.as_micros(), at.as_millis()),
        (1_234_567_000, 1_234_567, 1_234)
    );
}
