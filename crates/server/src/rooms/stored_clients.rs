//! What a journal keeps of a room's clients besides the room: who may come back.

use crate::rooms::tokens::{TokenHash, Tokens};
use core::fmt;
use stateroom_wasmi_host::{ClientId, Event, RecordedEvent};

/// The clients that a room has had.
#[derive(Debug, Default)]
pub(crate) struct StoredClients {
    /// The id that was given to a client last.
    pub(super) last_id: u32,
    pub(super) tokens: Tokens,
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

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = TokenHash::BYTES + size_of::<u32>();

impl StoredClients {
    /// The version, the last id, how many tokens, and each token's hash and client; integers are little
    /// endian.
    pub(super) fn encode(last_id: u32, tokens: &Tokens) -> Vec<u8> {
        let tokens = tokens.iter();
        let mut bytes = Vec::with_capacity(9 + tokens.len() * ENTRY_BYTES);
        bytes.push(VERSION);
        bytes.extend(last_id.to_le_bytes());
        bytes.extend((tokens.len() as u32).to_le_bytes());
        for (token, client) in tokens {
            bytes.extend(token.0);
            bytes.extend(client.0.to_le_bytes());
        }
        bytes
    }

    /// No more than `max_tokens` are kept, the newest.
    pub(super) fn decode(bytes: &[u8], max_tokens: usize) -> Result<Self, MalformedClients> {
        let (version, bytes) = bytes.split_first().ok_or(MalformedClients)?;
        if *version != VERSION {
            return Err(MalformedClients);
        }
        let (last_id, bytes) = read_u32(bytes)?;
        let (count, bytes) = read_u32(bytes)?;
        if bytes.len() != (count as usize).saturating_mul(ENTRY_BYTES) {
            return Err(MalformedClients);
        }
        let mut tokens = Tokens::default();
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let (token, client) = read_token(entry)?;
            let (client, _) = read_u32(client)?;
            let client = ClientId(client);
            if !client.is_valid() {
                return Err(MalformedClients);
            }
            tokens.insert(token, client, max_tokens, |_| false);
        }
        Ok(Self { last_id, tokens })
    }

    /// Does again what was done for a logged event; `token` is what was logged behind it.
    pub(super) fn replay(
        &mut self,
        event: RecordedEvent<'_>,
        token: &[u8],
        max_tokens: usize,
    ) -> Result<(), MalformedClients> {
        let RecordedEvent::Outside(Event::Connect(client)) = event else {
            return match token {
                [] => Ok(()),
                _ => Err(MalformedClients),
            };
        };
        if self.tokens.contains(client) {
            return Ok(());
        }
        self.last_id = client.0;
        if !token.is_empty() {
            let (token, rest) = read_token(token)?;
            if !rest.is_empty() {
                return Err(MalformedClients);
            }
            self.tokens.insert(token, client, max_tokens, |_| false);
        }
        Ok(())
    }
}

fn read_token(bytes: &[u8]) -> Result<(TokenHash, &[u8]), MalformedClients> {
    let (token, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
    Ok((TokenHash(*token), rest))
}

fn read_u32(bytes: &[u8]) -> Result<(u32, &[u8]), MalformedClients> {
    let (number, rest) = bytes.split_first_chunk().ok_or(MalformedClients)?;
    Ok((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_decoded_as_they_were_encoded() {
        let mut stored = StoredClients::default();
        for id in 1..=3 {
            let connect = RecordedEvent::Outside(Event::Connect(ClientId(id)));
            let token = [id as u8; TokenHash::BYTES];
            let token = if id == 2 { &[][..] } else { &token };
            stored.replay(connect, token, 10).expect("a token or none");
            // It comes back.
            stored.replay(connect, token, 10).expect("a token or none");
        }
        let bytes = StoredClients::encode(stored.last_id, &stored.tokens);
        let decoded = StoredClients::decode(&bytes, 10).expect("well-formed");
        assert_eq!((decoded.last_id, decoded.tokens.iter().len()), (3, 2));
        let again = StoredClients::encode(decoded.last_id, &decoded.tokens);
        assert_eq!(again, bytes);
        for id in [1, 3] {
            let client = decoded.tokens.client(TokenHash([id; TokenHash::BYTES]));
            assert_eq!(client, Some(ClientId(id.into())));
        }
        let newest = StoredClients::decode(&bytes, 1).expect("well-formed");
        let client = newest.tokens.client(TokenHash([3; TokenHash::BYTES]));
        assert_eq!(client, Some(ClientId(3)));
    }

    #[test]
    fn whatever_is_not_what_was_encoded_is_malformed() {
        let mut stored = StoredClients::default();
        let connect = RecordedEvent::Outside(Event::Connect(ClientId(1)));
        let token = [1; TokenHash::BYTES];
        stored.replay(connect, &token, 10).expect("a token");
        let bytes = StoredClients::encode(stored.last_id, &stored.tokens);
        for length in 0..bytes.len() {
            assert!(StoredClients::decode(&bytes[..length], 10).is_err());
        }
        assert!(StoredClients::decode(&[&bytes[..], b"x"].concat(), 10).is_err());
        assert!(stored.replay(RecordedEvent::Timer, &token, 10).is_err());
        let connect = RecordedEvent::Outside(Event::Connect(ClientId(2)));
        assert!(stored.replay(connect, &token[1..], 10).is_err());
    }
}
