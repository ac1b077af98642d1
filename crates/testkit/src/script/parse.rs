//! The format of scripts, read.

use super::{
    MAX_BYTES, ScriptError,
    line::{Expectation, Line, Recipients, Settings, Statement, Step},
};
use stateroom_wasmi_host::{Backoff, ClientId, Escaped, FaultPolicy, Instant, OwnedPayload};
use std::str::FromStr;

/// Lines of a script.
const MAX_LINES: usize = 20_000;

/// Bytes of one message, and of all messages of a script, after repetition.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_MESSAGES_BYTES: usize = 32 << 20;

/// The latest time: a year.
const MAX_NANOS: u64 = 365 * 24 * 3600 * 1_000_000_000;

pub(super) fn parse(text: &str) -> Result<(Vec<Line>, Settings), ScriptError> {
    if text.len() > MAX_BYTES {
        let message = format!("it is longer than {MAX_BYTES} bytes");
        return Err(ScriptError::new(0, message));
    }
    let mut parser = Parser::default();
    let mut lines = Vec::new();
    let mut start = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let error = |message| ScriptError::new(number, message);
        if number > MAX_LINES {
            return Err(error(format!("there are more than {MAX_LINES} lines")));
        }
        let content = line.strip_suffix('\n').unwrap_or(line);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let mut cursor = Cursor(match start {
            0 => content.strip_prefix('\u{feff}').unwrap_or(content),
            _ => content,
        });
        let statement = parser.statement(&mut cursor).map_err(error)?;
        // What is left is the comment.
        let end = start + content.len();
        lines.push(Line {
            number,
            range: start..end,
            comment: end - cursor.0.len()..end,
            statement,
        });
        start += line.len();
    }
    Ok((lines, parser.settings))
}

#[derive(Default)]
struct Parser {
    settings: Settings,
    /// Whether there was a line that is no setting.
    has_begun: bool,
    now: Instant,
    messages_bytes: usize,
}

impl Parser {
    fn statement(&mut self, line: &mut Cursor<'_>) -> Result<Statement, String> {
        line.skip_spaces();
        let statement = match line.peek() {
            None | Some('#') => return Ok(Statement::Blank),
            Some('@') => {
                line.skip('@');
                Statement::Step(Step::Time(self.time(line)?))
            }
            Some('0'..='9') => self.message(line)?,
            _ => match line.word() {
                "connect" => Statement::Step(Step::Connect(line.client()?)),
                "disconnect" => Statement::Step(Step::Disconnect(line.client()?)),
                "upgrade" => Statement::Step(Step::Upgrade),
                "all" => {
                    line.expect('<')?;
                    let payload = self.payload(line)?;
                    Statement::Expectation(Expectation::Message(Recipients::All, payload))
                }
                "fault" => {
                    let text = match line.peek() {
                        None | Some('#') => String::new(),
                        _ => line.text()?,
                    };
                    Statement::Expectation(Expectation::Fault(text))
                }
                name => {
                    self.setting(name, line)?;
                    Statement::Setting
                }
            },
        };
        line.skip_spaces();
        match line.peek() {
            None | Some('#') => {}
            Some(_) => return Err(format!("{} is too much on this line", line.quoted())),
        }
        self.has_begun |= !matches!(statement, Statement::Setting);
        Ok(statement)
    }

    fn setting(&mut self, name: &str, line: &mut Cursor<'_>) -> Result<(), String> {
        let settings = &mut self.settings;
        match name {
            "room" => set(&mut settings.room_id, line.text()?)?,
            "seed" => set(&mut settings.seed, line.number()?)?,
            "on-fault" => set(&mut settings.on_fault, line.fault_policy()?)?,
            "max-fuel-per-event" => {
                let fuel = line.number()?;
                if fuel == 0 {
                    return Err("there is no event without fuel".into());
                }
                set(&mut settings.max_fuel_per_event, fuel)?;
            }
            _ => {
                let name = match name {
                    "" => line.quoted(),
                    name => quoted(name),
                };
                return Err(format!(
                    "{name} begins no line; lines are `connect 1`, `1 > \"text\"`, `1 < \"text\"`, \
                     `all < \"text\"`, `@ 1 s`, `fault`, `disconnect 1`, `upgrade`, and before these `room`, `seed`, \
                     `on-fault`, `max-fuel-per-event`"
                ));
            }
        }
        if self.has_begun {
            return Err(format!("`{name}` must stand before what happens"));
        }
        Ok(())
    }

    /// What begins with clients: `1 > payload`, or `1, 2 < payload`.
    fn message(&mut self, line: &mut Cursor<'_>) -> Result<Statement, String> {
        let mut clients = vec![line.client()?];
        loop {
            match line.peek() {
                Some(',') => {
                    line.skip(',');
                    clients.push(line.client()?);
                }
                Some('<') => {
                    line.skip('<');
                    clients.sort_unstable();
                    let count = clients.len();
                    clients.dedup();
                    if clients.len() < count {
                        return Err("a client is named twice".into());
                    }
                    let payload = self.payload(line)?;
                    let recipients = Recipients::Clients(clients);
                    return Ok(Statement::Expectation(Expectation::Message(
                        recipients, payload,
                    )));
                }
                Some('>') => {
                    line.skip('>');
                    let [client] = clients[..] else {
                        return Err("a message is sent by one client".into());
                    };
                    return Ok(Statement::Step(Step::Send(client, self.payload(line)?)));
                }
                _ => {
                    return Err(format!(
                        "expected `>` (the client sends) or `<` (it receives), found {}",
                        line.quoted()
                    ));
                }
            }
        }
    }

    /// Text or bytes; parts of it may be repeated: `"guest: " + "x" * 1000`.
    fn payload(&mut self, line: &mut Cursor<'_>) -> Result<OwnedPayload, String> {
        let mut payload = self.part(line)?;
        while line.peek() == Some('+') {
            line.skip('+');
            match (&mut payload, self.part(line)?) {
                (OwnedPayload::Text(text), OwnedPayload::Text(more)) => text.push_str(&more),
                (OwnedPayload::Bytes(bytes), OwnedPayload::Bytes(more)) => bytes.extend(more),
                _ => return Err("a message is either text or bytes".into()),
            }
        }
        if payload.as_payload().len() > MAX_MESSAGE_BYTES {
            return Err(format!(
                "the message is longer than {MAX_MESSAGE_BYTES} bytes"
            ));
        }
        Ok(payload)
    }

    fn part(&mut self, line: &mut Cursor<'_>) -> Result<OwnedPayload, String> {
        let part = match line.peek() {
            Some('"' | '\'') => OwnedPayload::Text(line.text()?),
            Some('0') => OwnedPayload::Bytes(line.bytes()?),
            _ => {
                return Err(format!(
                    "expected a message, \"text\" or bytes as 0x00ff, found {}",
                    line.quoted()
                ));
            }
        };
        let times = match line.peek() {
            Some('*') => {
                line.skip('*');
                line.number::<usize>()?
            }
            _ => 1,
        };
        // Before it is repeated, so that no script takes more memory.
        let bytes = part.as_payload().len().saturating_mul(times);
        self.messages_bytes = self.messages_bytes.saturating_add(bytes);
        if self.messages_bytes > MAX_MESSAGES_BYTES {
            return Err(format!(
                "the messages of the script are longer than {MAX_MESSAGES_BYTES} bytes together"
            ));
        }
        Ok(match part {
            OwnedPayload::Text(text) => OwnedPayload::Text(text.repeat(times)),
            OwnedPayload::Bytes(bytes) => OwnedPayload::Bytes(bytes.repeat(times)),
        })
    }

    fn time(&mut self, line: &mut Cursor<'_>) -> Result<Instant, String> {
        let time = line.time()?;
        if time < self.now {
            return Err("the time is earlier than that of a line before".into());
        }
        self.now = time;
        Ok(time)
    }
}

fn set<T>(setting: &mut Option<T>, value: T) -> Result<(), String> {
    match setting.replace(value) {
        None => Ok(()),
        Some(_) => Err("it is set twice".into()),
    }
}

/// Something of a script, as a message quotes it.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    format!("{:?}", Escaped::new(text).at_most(SHOWN))
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Skips a character that was peeked, and spaces.
    fn skip(&mut self, c: char) {
        self.0 = self.0.strip_prefix(c).unwrap_or(self.0);
        self.skip_spaces();
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.peek() != Some(c) {
            return Err(format!("expected `{c}`, found {}", self.quoted()));
        }
        self.skip(c);
        Ok(())
    }

    /// Takes characters, and the spaces behind them.
    fn take_while(&mut self, is_taken: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !is_taken(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        self.skip_spaces();
        taken
    }

    fn word(&mut self) -> &'a str {
        self.take_while(|c| c.is_ascii_alphabetic() || c == '-')
    }

    /// Takes a number of digits alone.
    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let at = self.quoted();
        let digits = self.take_while(|c| c.is_ascii_digit());
        match digits.parse() {
            Ok(number) => Ok(number),
            Err(_) if digits.is_empty() => Err(format!("expected a number, found {at}")),
            Err(_) => Err(format!("the number {} is too large", quoted(digits))),
        }
    }

    fn client(&mut self) -> Result<ClientId, String> {
        let client = ClientId(self.number()?);
        if !client.is_valid() {
            let max = ClientId::MAX;
            return Err(format!(
                "client {client} cannot be: ids are from 1 to {max}"
            ));
        }
        Ok(client)
    }

    fn fault_policy(&mut self) -> Result<FaultPolicy, String> {
        match self.word() {
            "close" => Ok(FaultPolicy::Close),
            "restart" => Ok(FaultPolicy::Restart(Backoff::new())),
            "continue" => Ok(FaultPolicy::Continue),
            "rollback" => Ok(FaultPolicy::Rollback),
            _ => Err("expected `close`, `restart`, `continue` or `rollback`".into()),
        }
    }

    /// A time since the room's creation, such as `1.5 s`.
    fn time(&mut self) -> Result<Instant, String> {
        let digits = self.take_while(|c| c.is_ascii_digit() || c == '.');
        let unit = self.word();
        let nanos_per_unit: u64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err("expected a time in ns, us, ms, s, min or h, such as `@ 1.5 s`".into());
            }
        };
        let nanos = to_nanos(digits, nanos_per_unit)
            .ok_or_else(|| format!("{} {unit} is no time", quoted(digits)))?;
        if nanos > MAX_NANOS {
            return Err("the time is later than a year".into());
        }
        Ok(Instant::from_nanos(nanos))
    }

    /// Bytes as `0x` and two digits each; `_` may stand between bytes.
    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let Some(rest) = self.0.strip_prefix("0x") else {
            return Err(format!("expected bytes as 0x00ff, found {}", self.quoted()));
        };
        self.0 = rest;
        let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let groups = digits.split('_').map(str::as_bytes);
        let mut bytes = Vec::new();
        for group in groups {
            let (pairs, rest) = group.as_chunks::<2>();
            if !rest.is_empty() {
                return Err("bytes have two digits each".into());
            }
            for [high, low] in pairs {
                let digit = |c: u8| char::from(c).to_digit(16);
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
                    _ => return Err("bytes have digits from 0 to f".into()),
                }
            }
        }
        Ok(bytes)
    }

    /// A text in double quotes, with the escapes of Rust, or in single quotes, without any.
    fn text(&mut self) -> Result<String, String> {
        let unended = || "the text has no end on this line".to_owned();
        if let Some(rest) = self.0.strip_prefix('\'') {
            let (text, rest) = rest.split_once('\'').ok_or_else(unended)?;
            self.0 = rest;
            self.skip_spaces();
            return Ok(text.to_owned());
        }
        let Some(rest) = self.0.strip_prefix('"') else {
            return Err(format!(
                "expected a text in quotes, found {}",
                self.quoted()
            ));
        };
        let mut text = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next().ok_or_else(unended)? {
                '"' => break,
                '\\' => text.push(unescape(&mut chars)?),
                c => text.push(c),
            }
        }
        self.0 = chars.as_str();
        self.skip_spaces();
        Ok(text)
    }

    fn quoted(&self) -> String {
        match self.0 {
            "" => "the end of the line".into(),
            rest => quoted(rest),
        }
    }
}

/// The character of an escape, without its backslash.
fn unescape(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    const EXPECTED: &str =
        "expected one of the escapes \\n \\r \\t \\0 \\\\ \\\" \\' \\x1b \\u{1f600}";
    let code = match chars.next() {
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('0') => return Ok('\0'),
        Some(c @ ('\\' | '"' | '\'')) => return Ok(c),
        Some('x') => {
            let (digits, rest) = chars.as_str().split_at_checked(2).ok_or(EXPECTED)?;
            *chars = rest.chars();
            // Beyond that, a text has characters and no bytes.
            hexadecimal(digits).filter(|code| *code < 0x80)
        }
        Some('u') => {
            let braced = chars.as_str().strip_prefix('{').ok_or(EXPECTED)?;
            let (digits, rest) = braced.split_once('}').ok_or(EXPECTED)?;
            *chars = rest.chars();
            hexadecimal(digits)
        }
        _ => None,
    };
    code.and_then(char::from_u32).ok_or_else(|| EXPECTED.into())
}

fn hexadecimal(digits: &str) -> Option<u32> {
    // The parser of the standard library takes a sign, too.
    let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|_| is_hexadecimal)
}

/// A decimal number of units in nanoseconds; none if it is no number, too large, or not a whole number
/// of nanoseconds.
fn to_nanos(digits: &str, nanos_per_unit: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(nanos_per_unit)?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(nanos_per_unit);
    let (nanos, rest) = (fraction / u128::from(scale), fraction % u128::from(scale));
    let nanos = u64::try_from(nanos).ok().filter(|_| rest == 0)?;
    whole.checked_add(nanos)
}
