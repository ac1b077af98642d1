//! A room behind a context: what the services of both versions are.

use crate::{context::Context, error::WasmRuntimeError, factory::Settings};
use anyhow::Context as _;
use stateroom_wasmi_host::{
    Clock, Escaped, Event, EventError, FaultPolicy, Module, Output, Room, RoomOptions, SystemClock,
    WithSources,
};
use std::time::Duration;

pub(crate) struct Service {
    room: Room,
    context: Box<dyn Context>,
    /// The room's time.
    clock: SystemClock,
    max_event_time: Option<Duration>,
    timer: TimerUse,
    is_close_logged: bool,
    /// Events that the room refused.
    lost_events: u64,
}

/// What the context's timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerUse {
    /// It is the guest's.
    Guest,
    /// To wait until a fresh guest is started.
    Restart,
    /// It was cancelled. A context that cannot cancel it, or does so too late, fires it all the same.
    Nobody,
}

impl Service {
    /// Opens a room and initialises its guest. What that sends is left for [`drive`](Self::drive).
    ///
    /// # Errors
    ///
    /// If the room cannot be opened, or its guest fails.
    pub(crate) fn new(
        room_id: &str,
        module: &Module,
        settings: Settings,
        context: impl Context + 'static,
    ) -> anyhow::Result<Self> {
        let seed = match settings.seed {
            Some(seed) => seed,
            None => getrandom::u64().context("there is no random seed")?,
        };
        let clock = SystemClock::new();
        let mut options = RoomOptions::new().seed(seed).on_fault(settings.on_fault);
        options.unix_time_at_zero = clock.unix_time_at_zero();
        let room = Room::unmanaged(module, room_id, options).map_err(WasmRuntimeError::Open)?;
        let mut service = Self {
            room,
            context: Box::new(context),
            clock,
            max_event_time: settings.max_event_time,
            timer: TimerUse::Guest,
            is_close_logged: false,
            lost_events: 0,
        };
        service.end_event();
        match service.room.last_fault() {
            Some(fault) => Err(WasmRuntimeError::Fault(fault.clone()).into()),
            None => Ok(service),
        }
    }

    pub(crate) const fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) fn handle(&mut self, event: Event<'_>) {
        self.restart_if_due();
        let result = self.room.handle_event(self.clock.now(), event);
        self.accepted(result);
    }

    /// The context's timer has fired.
    pub(crate) fn timer(&mut self) {
        match self.timer {
            TimerUse::Guest => {
                let result = self.room.handle_timer(self.clock.now());
                self.accepted(result);
            }
            TimerUse::Restart => {
                self.timer = TimerUse::Nobody;
                self.restart_if_due();
                self.drive();
            }
            TimerUse::Nobody => {}
        }
    }

    /// Runs the room until it waits for the next event, and sends its outputs.
    pub(crate) fn drive(&mut self) {
        loop {
            self.end_event();
            self.send_outputs();
            let now = self.clock.now();
            // A restart is for another call, or a guest that always fails might keep this one.
            if self.awaits_restart() || !self.room.has_work(now) {
                break;
            }
            self.room.resume(now);
        }
        self.set_restart_timer();
        self.log_close();
    }

    fn accepted(&mut self, result: Result<(), EventError>) {
        match result {
            // That it is closed has been logged.
            Ok(()) | Err(EventError::Closed) => {}
            Err(error) => {
                self.lost_events += 1;
                // A client can cause this at will.
                if self.lost_events.is_power_of_two() {
                    log::warn!(
                        "room {:?} has lost {} events until now, the last since {error}",
                        Escaped::new(self.room.id()),
                        self.lost_events
                    );
                }
            }
        }
        self.drive();
    }

    /// Runs the event that the guest is in the middle of to its end.
    fn end_event(&mut self) {
        let began = self.clock.now();
        while self.room.is_in_event() {
            let now = self.clock.now();
            let time = now.saturating_duration_since(began);
            match self.max_event_time {
                Some(limit) if time >= limit => self.room.interrupt(),
                _ => self.room.resume(now),
            }
        }
    }

    fn send_outputs(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Message(message) => self.context.send(message),
                Output::SetTimer(delay) => {
                    self.timer = TimerUse::Guest;
                    self.context.set_timer(whole_millis(delay));
                }
                Output::CancelTimer => {
                    self.timer = TimerUse::Nobody;
                    self.context.cancel_timer();
                }
                // The program knows who is connected.
                _ => {}
            }
        }
    }

    /// Whether the room is to begin anew. (One that is rolled back has no guest for a moment, too.)
    fn awaits_restart(&self) -> bool {
        self.room.is_restarting() && matches!(self.room.on_fault(), FaultPolicy::Restart(_))
    }

    fn restart_if_due(&mut self) {
        if self.awaits_restart() {
            self.room.handle_timeout(self.clock.now());
        }
    }

    /// Sets the timer for a fresh guest, if there is to be one and it is not set yet.
    fn set_restart_timer(&mut self) {
        if !self.awaits_restart() || self.timer == TimerUse::Restart {
            return;
        }
        if let Some(at) = self.room.poll_timeout() {
            self.timer = TimerUse::Restart;
            let delay = at.saturating_duration_since(self.clock.now());
            self.context.set_timer(whole_millis(delay));
        }
    }

    fn log_close(&mut self) {
        if let Some(fault) = self.room.fault()
            && !self.is_close_logged
        {
            self.is_close_logged = true;
            log::error!(
                "room {:?} is closed after a fault: {}",
                Escaped::new(self.room.id()),
                WithSources(fault)
            );
        }
    }
}

/// Rounded up, so that a timer does not fire before its time.
fn whole_millis(delay: Duration) -> u32 {
    let millis = delay.as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).unwrap_or(u32::MAX)
}
