//! Scripts, played.

use super::{
    Outcome, Script, ScriptError,
    compare::{Change, changes, take_happened},
    line::{Expectation, Line, Statement, Step},
    rewrite::Rewrite,
};
use crate::{
    display::Time,
    driver::{DriverError, RoomDriver},
    options::TestOptions,
    printed::Printed,
};
use stateroom_wasmi_host::{Event, Instant};
use std::mem;

/// Messages of one step: beyond that a script would not be read by anybody.
const MAX_HAPPENED: usize = 10_000;

/// `next` is the module that it goes on with when it is upgraded; none is the same.
pub(super) fn run(
    script: &Script,
    wasm: &[u8],
    next: Option<&[u8]>,
    options: &TestOptions,
) -> Outcome {
    let settings = &script.settings;
    let room_id = settings.room_id.as_deref().unwrap_or(options.room_id);
    let fuel = settings.max_fuel_per_event;
    let fuel = fuel.or(options.limits.max_fuel_per_event);
    let options = options
        .limits(options.limits.max_fuel_per_event(fuel))
        .seed(settings.seed.unwrap_or(options.seed))
        .on_fault(settings.on_fault.unwrap_or(options.on_fault));
    match RoomDriver::open(wasm, room_id, &options) {
        Ok(driver) => Run::new(script, driver, next).finish(),
        Err(error) => Outcome {
            name: script.name.clone(),
            expected: script.text.clone(),
            happened: None,
            first_line: 0,
            error: Some(ScriptError::new(0, error.to_string()).of(&script.name)),
            printed: Printed::default(),
        },
    }
}

struct Run<'a> {
    script: &'a Script,
    driver: RoomDriver,
    next: Option<&'a [u8]>,
    rewrite: Rewrite<'a>,
    /// The number of the line whose step was the last, and the index behind its last expectation.
    step_line: usize,
    step_end: usize,
    /// The indices of the lines that expect something of the step.
    expectations: Vec<usize>,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, driver: RoomDriver, next: Option<&'a [u8]>) -> Self {
        Self {
            script,
            driver,
            next,
            rewrite: Rewrite::new(script),
            step_line: 1,
            step_end: 0,
            expectations: Vec::new(),
        }
    }

    fn finish(mut self) -> Outcome {
        let name = &self.script.name;
        let mut error = self.play().err().map(|error| error.of(name));
        let first_line = self.rewrite.first_line();
        let happened = first_line.map(|_| self.rewrite.finish());
        // It may have become longer than a script may be.
        let is_script = |text: &String| match Script::parse(name, text) {
            Ok(_) => true,
            Err(reason) => {
                error.get_or_insert(reason);
                false
            }
        };
        let happened = happened.filter(is_script);
        Outcome {
            name: name.clone(),
            expected: self.script.text.clone(),
            happened,
            first_line: first_line.unwrap_or(0),
            error,
            printed: self.driver.printed,
        }
    }

    fn play(&mut self) -> Result<(), ScriptError> {
        for (index, line) in self.script.lines.iter().enumerate() {
            match &line.statement {
                Statement::Blank => {}
                Statement::Setting => self.step_end = index + 1,
                Statement::Expectation(_) => self.expectations.push(index),
                Statement::Step(step) => {
                    self.end_step()?;
                    self.step(step, line)
                        .map_err(|error| ScriptError::new(line.number, error.to_string()))?;
                    self.check_length(line.number)?;
                    self.step_line = line.number;
                    self.step_end = index + 1;
                }
            }
        }
        self.end_step()
    }

    fn step(&mut self, step: &Step, line: &Line) -> Result<(), DriverError> {
        match step {
            Step::Connect(client) => self.driver.handle(Event::Connect(*client)),
            Step::Disconnect(client) => self.driver.handle(Event::Disconnect(*client)),
            Step::Send(client, payload) => {
                let message = Event::Message(*client, payload.as_payload());
                self.driver.handle(message)
            }
            Step::Upgrade => self.driver.upgrade(self.next),
            Step::Time(until) => self.advance(*until, line),
        }
    }

    /// Lets time pass. What happens before the end of it is unexpected: the script would have a line for
    /// that time.
    fn advance(&mut self, until: Instant, line: &Line) -> Result<(), DriverError> {
        let mut heading = None;
        while self.driver.advance(until)? {
            let now = self.driver.now();
            if now == until {
                continue;
            }
            let happened = take_happened(&mut self.driver);
            if !happened.is_empty() && heading != Some(now) {
                heading = Some(now);
                let text = format!("@ {}", Time(now));
                self.rewrite.insert(self.step_end, line.number, text);
            }
            let connected: Vec<_> = self.driver.clients().collect();
            for happened in happened {
                let text = happened.describe(&connected);
                self.rewrite
                    .insert_expectation(self.step_end, line.number, &text);
            }
            // The caller finds out.
            if self.rewrite.is_too_long() {
                break;
            }
        }
        Ok(())
    }

    /// Compares what the step's lines expect with what has happened.
    fn end_step(&mut self) -> Result<(), ScriptError> {
        let happened = take_happened(&mut self.driver);
        if happened.len() > MAX_HAPPENED {
            let message = format!("the room sends more than {MAX_HAPPENED} messages for one step");
            return Err(ScriptError::new(self.step_line, message));
        }
        let lines = mem::take(&mut self.expectations);
        let expected: Vec<&Expectation> = lines
            .iter()
            .filter_map(|index| match &self.script.lines[*index].statement {
                Statement::Expectation(expectation) => Some(expectation),
                _ => None,
            })
            .collect();
        let connected: Vec<_> = self.driver.clients().collect();
        for change in changes(&expected, &happened, &connected) {
            match change {
                Change::Replace(index, text) => self.rewrite.replace(lines[index], &text),
                Change::Remove(index) => self.rewrite.remove(lines[index]),
                Change::Insert(index, text) => {
                    // Behind the expectation before it.
                    let before = index.checked_sub(1).map(|index| lines[index]);
                    let near =
                        before.map_or(self.step_line, |index| self.script.lines[index].number);
                    let before = before.map_or(self.step_end, |index| index + 1);
                    self.rewrite.insert_expectation(before, near, &text);
                }
            }
        }
        self.step_end = lines.last().map_or(self.step_end, |index| index + 1);
        self.check_length(self.step_line)
    }

    fn check_length(&self, line: usize) -> Result<(), ScriptError> {
        if self.rewrite.is_too_long() {
            let message = "what the room sends is longer than a script may be";
            return Err(ScriptError::new(line, message));
        }
        Ok(())
    }
}
