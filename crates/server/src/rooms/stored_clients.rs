//! What a journal keeps of a room's clients besides the room: who may come back.

use crate::rooms::{
    sessions::StoredSession,
    tokens::{TokenHash, Tokens},
};
use core::fmt;
use stateroom_wasmi_host::{ClientId, Event, Output, OutputMessage, RecordedEvent};
use std::collections::BTreeMap;

/// The clients that a room has had.
#[derive(Debug, Default)]
pub(crate) struct StoredClients {
    /// The id that was given to a client last.
    pub(super) last_id: u32,
    pub(super) tokens: Tokens,
    /// Those of the connected clients that have one.
    pub(super) sessions: BTreeMap<ClientId, StoredSession>,
    /// What tokens are hashed with, if the room comes from a server with another secret.
    pub(super) secret: Option<[u8; 32]>,
}

/// The bytes are not what is stored of clients.
#[derive(Debug)]
pub(super) struct MalformedClients;

impl fmt::Display for MalformedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what is stored of the room's clients is malformed")
    }
}

impl core::error::Error for MalformedClients {}

/// Without and with a secret behind the version.
const VERSION: u8 = 3;
const VERSION_WITH_SECRET: u8 = 4;

/// The same before sessions had sequence numbers.
const OLD_VERSION: u8 = 1;
const OLD_VERSION_WITH_SECRET: u8 = 2;

/// By what a client that has connected may come back: what is logged behind its connect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credentials {
    /// Of its token.
    pub(super) token: Option<TokenHash>,
    /// Of the secret of its session, and the number of its handshake.
    pub(super) session: Option<(TokenHash, u64)>,
}

impl Credentials {
    const TOKEN: u8 = 1;
    /// Without a sequence number, as in earlier formats, and with one.
    const OLD_SESSION: u8 = 2;
    const SESSION: u8 = 4;

    /// Nothing if there are none; else a byte that says which there are, and these.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        let mut flags = 0;
        if self.token.is_some() {
            flags |= Self::TOKEN;
        }
        if self.session.is_some() {
            flags |= Self::SESSION;
        }
        if flags != 0 {
            to.push(flags);
        }
        to.extend(self.token.iter().flat_map(|token| token.0));
        if let Some((session, sequence)) = self.session {
            to.extend(session.0);
            to.extend(sequence.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, MalformedClients> {
        let Some((flags, mut bytes)) = bytes.split_first() else {
            return Ok(Self::default());
        };
        let mut credentials = Self::default();
        if flags & Self::TOKEN != 0 {
            let (token, rest) = read_token(bytes)?;
            (credentials.token, bytes) = (Some(token), rest);
        }
        let sessions = flags & !Self::TOKEN;
        if matches!(sessions, Self::OLD_SESSION | Self::SESSION) {
            let (session, rest) = read_token(bytes)?;
            (credentials.session, bytes) = (Some((session, 0)), rest);
        }
        if let (Some((_, sequence)), Self::SESSION) = (&mut credentials.session, sessions) {
            let (number, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
            (*sequence, bytes) = (u64::from_le_bytes(*number), rest);
        }
        let is_known = matches!(sessions, 0 | Self::OLD_SESSION | Self::SESSION);
        let is_whole = bytes.is_empty() && is_known;
        is_whole.then_some(credentials).ok_or(MalformedClients)
    }
}

impl StoredClients {
    /// The version, the secret if that says so, the last id, how many tokens, and each token's hash and client; how many sessions, and
    /// each one's client and session. Integers are little endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.secret {
            None => bytes.push(VERSION),
            Some(secret) => {
                bytes.push(VERSION_WITH_SECRET);
                bytes.extend(secret);
            }
        }
        bytes.extend(self.last_id.to_le_bytes());
        bytes.extend((self.tokens.iter().len() as u32).to_le_bytes());
        for (token, client) in self.tokens.iter() {
            bytes.extend(token.0);
            bytes.extend(client.0.to_le_bytes());
        }
        bytes.extend((self.sessions.len() as u32).to_le_bytes());
        for (client, session) in &self.sessions {
            bytes.extend(client.0.to_le_bytes());
            session.encode(&mut bytes);
        }
        bytes
    }

    /// No more than `max_tokens` are kept, the newest.
    pub(super) fn decode(bytes: &[u8], max_tokens: usize) -> Result<Self, MalformedClients> {
        let (version, bytes) = bytes.split_first().ok_or(MalformedClients)?;
        let has_sequences = matches!(*version, VERSION | VERSION_WITH_SECRET);
        let (secret, bytes) = match *version {
            VERSION | OLD_VERSION => (None, bytes),
            VERSION_WITH_SECRET | OLD_VERSION_WITH_SECRET => {
                let (secret, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
                (Some(*secret), rest)
            }
            _ => return Err(MalformedClients),
        };
        let (last_id, bytes) = read_u32(bytes)?;
        let (count, mut bytes) = read_u32(bytes)?;
        let mut stored = Self {
            last_id,
            secret,
            ..Self::default()
        };
        for _ in 0..count {
            let (token, rest) = read_token(bytes)?;
            let (client, rest) = read_client(rest)?;
            bytes = rest;
            stored.tokens.insert(token, client, max_tokens, |_| false);
        }
        let (count, mut bytes) = read_u32(bytes)?;
        for _ in 0..count {
            let (client, rest) = read_client(bytes)?;
            let (session, rest) =
                StoredSession::decode(rest, has_sequences).ok_or(MalformedClients)?;
            bytes = rest;
            stored.sessions.insert(client, session);
        }
        bytes.is_empty().then_some(stored).ok_or(MalformedClients)
    }

    /// Does again what was done for a logged event, with what was logged behind it; `was_waiting` if the
    /// event was accepted before the room was saved.
    pub(super) fn replay(
        &mut self,
        event: RecordedEvent<'_>,
        credentials: &[u8],
        was_waiting: bool,
        max_tokens: usize,
    ) -> Result<(), MalformedClients> {
        let credentials = Credentials::decode(credentials)?;
        match event {
            RecordedEvent::Outside(Event::Connect(client)) => {
                if !self.tokens.contains(client) {
                    self.last_id = client.0;
                    if let Some(token) = credentials.token {
                        self.tokens.insert(token, client, max_tokens, |_| false);
                    }
                }
                match credentials.session {
                    // It began before the room was saved, when the connect was accepted.
                    Some(_) if was_waiting => {}
                    Some((session, sequence)) => {
                        let session = StoredSession::new(session, sequence);
                        self.sessions.insert(client, session);
                    }
                    None => drop(self.sessions.remove(&client)),
                }
            }
            RecordedEvent::Outside(Event::Disconnect(client)) if !was_waiting => {
                self.sessions.remove(&client);
            }
            RecordedEvent::Outside(Event::Message(client, _)) if !was_waiting => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.received += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the room sends again. A session for which that is too much is over.
    pub(super) fn output(&mut self, output: Output<'_>) {
        match output {
            Output::Joined(client) => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.outputs_enabled = true;
                }
            }
            Output::Message(OutputMessage { recipient, payload }) => {
                self.sessions.retain(|client, session| {
                    let is_recipient = session.outputs_enabled && recipient.includes(*client);
                    !is_recipient || session.push(payload).is_ok()
                });
            }
            _ => {}
        }
    }
}

fn read_token(bytes: &[u8]) -> Result<(TokenHash, &[u8]), MalformedClients> {
    let (token, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
    Ok((TokenHash(*token), rest))
}

fn read_client(bytes: &[u8]) -> Result<(ClientId, &[u8]), MalformedClients> {
    let (client, rest) = read_u32(bytes)?;
    let client = ClientId(client);
    let is_valid = client.is_valid();
    is_valid.then_some((client, rest)).ok_or(MalformedClients)
}

fn read_u32(bytes: &[u8]) -> Result<(u32, &[u8]), MalformedClients> {
    let (number, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
    Ok((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateroom_wasmi_host::{MessagePayload, MessageRecipient};

    fn hash(byte: u8) -> TokenHash {
        TokenHash([byte; TokenHash::BYTES])
    }

    fn connect(stored: &mut StoredClients, id: u32, token: Option<u8>, session: Option<u8>) {
        let credentials = Credentials {
            token: token.map(hash),
            session: session.map(|session| (hash(session), 100 + u64::from(session))),
        };
        let mut bytes = Vec::new();
        credentials.encode(&mut bytes);
        let event = RecordedEvent::Outside(Event::Connect(ClientId(id)));
        let replayed = stored.replay(event, &bytes, false, 10);
        replayed.expect("well-formed");
    }

    fn clients() -> StoredClients {
        let mut stored = StoredClients::default();
        connect(&mut stored, 1, Some(1), None);
        connect(&mut stored, 2, None, Some(12));
        connect(&mut stored, 3, Some(3), Some(13));
        // It comes back.
        connect(&mut stored, 1, Some(1), None);
        let joined = |id| Output::Joined(ClientId(id));
        let message = |recipient, text| {
            let payload = MessagePayload::Text(text);
            Output::Message(OutputMessage { recipient, payload })
        };
        stored.output(message(MessageRecipient::Broadcast, "too early"));
        stored.output(joined(2));
        stored.output(message(MessageRecipient::Broadcast, "to 2"));
        stored.output(joined(3));
        stored.output(message(
            MessageRecipient::EveryoneExcept(ClientId(2)),
            "to 3",
        ));
        stored.output(message(MessageRecipient::Client(ClientId(2)), "again to 2"));
        let said = Event::message(ClientId(2), "text");
        for was_waiting in [false, true, false] {
            let event = RecordedEvent::Outside(said);
            let replayed = stored.replay(event, &[], was_waiting, 10);
            replayed.expect("well-formed");
        }
        stored
    }

    #[test]
    fn clients_are_decoded_as_they_were_encoded() {
        let stored = clients();
        let bytes = stored.encode();
        let decoded = StoredClients::decode(&bytes, 10).expect("well-formed");
        assert_eq!((decoded.last_id, decoded.tokens.iter().len()), (3, 2));
        assert_eq!(decoded.encode(), bytes);
        for id in [1, 3] {
            assert_eq!(decoded.tokens.client(hash(id)), Some(ClientId(id.into())));
        }
        let session = &decoded.sessions[&ClientId(2)];
        assert_eq!((session.hash, session.received), (hash(12), 2));
        assert!(session.outputs_enabled);
        assert_eq!(decoded.sessions.len(), 2);
        let newest = StoredClients::decode(&bytes, 1).expect("well-formed");
        assert_eq!(newest.tokens.client(hash(3)), Some(ClientId(3)));
    }

    #[test]
    fn a_session_ends_with_its_client() {
        let mut stored = clients();
        let gone = RecordedEvent::Outside(Event::Disconnect(ClientId(2)));
        stored.replay(gone, &[], false, 10).expect("well-formed");
        // And another connect has another one, or none.
        connect(&mut stored, 3, Some(3), None);
        assert!(stored.sessions.is_empty());
    }

    #[test]
    fn sessions_without_sequence_numbers_are_read() {
        let mut stored = StoredClients::default();
        let event = RecordedEvent::Outside(Event::Connect(ClientId(7)));
        let credentials = [&[3][..], &hash(1).0, &hash(2).0].concat();
        let replayed = stored.replay(event, &credentials, false, 10);
        replayed.expect("well-formed");
        assert_eq!(stored.tokens.client(hash(1)), Some(ClientId(7)));
        let session = &stored.sessions[&ClientId(7)];
        assert_eq!((session.hash, session.sequence), (hash(2), 0));

        // The sequence number is behind the hash.
        let mut bytes = clients().encode();
        assert_eq!(bytes[0], VERSION);
        bytes[0] = OLD_VERSION;
        for id in [12, 13] {
            let find = |window: &[u8]| window == hash(id).0;
            let at = bytes.windows(TokenHash::BYTES).position(find);
            let at = at.expect("its session") + TokenHash::BYTES;
            let number: Vec<_> = bytes.drain(at..at + 8).collect();
            assert_eq!(number, (100 + u64::from(id)).to_le_bytes());
        }
        let decoded = StoredClients::decode(&bytes, 10).expect("well-formed");
        assert_eq!(decoded.sessions.len(), 2);
        for session in decoded.sessions.values() {
            assert_eq!((session.sequence, session.outputs_enabled), (0, true));
        }
    }

    #[test]
    fn whatever_is_not_what_was_encoded_is_malformed() {
        let bytes = clients().encode();
        for length in 0..bytes.len() {
            assert!(StoredClients::decode(&bytes[..length], 10).is_err());
        }
        assert!(StoredClients::decode(&[&bytes[..], b"x"].concat(), 10).is_err());
        let mut stored = StoredClients::default();
        let connect = RecordedEvent::Outside(Event::Connect(ClientId(2)));
        for credentials in [
            &[1][..],
            &[2],
            &[4],
            &[8],
            &[3; 17],
            &[1; 18],
            &[4; 17],
            &[6; 25],
        ] {
            assert!(stored.replay(connect, credentials, false, 10).is_err());
        }
    }
}
