//! The ids of clients that gave a token, for when they come back.

use core::hash::BuildHasher;
use stateroom_wasmi_host::ClientId;
use std::{collections::VecDeque, hash::RandomState};

/// What a token is known by. Keyed with what only this process knows, so that neither the time that
/// a comparison takes nor a look into the memory tells a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token([u64; 2]);

/// Makes [`Token`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenHasher([RandomState; 2]);

impl TokenHasher {
    pub(crate) fn token(&self, text: &str) -> Token {
        Token(self.0.each_ref().map(|key| key.hash_one(text)))
    }
}

/// The tokens of a room, latest last.
#[derive(Debug, Default)]
pub(crate) struct Tokens(VecDeque<(Token, ClientId)>);

impl Tokens {
    pub(crate) fn client(&self, token: Token) -> Option<ClientId> {
        self.0
            .iter()
            .find(|(known, _)| *known == token)
            .map(|(_, client)| *client)
    }

    pub(crate) fn has(&self, client: ClientId) -> bool {
        self.0.iter().any(|(_, known)| *known == client)
    }

    /// Remembers whose token this is. If there are `limit` already, the oldest one whose client is
    /// not connected is forgotten; if all are, this one is not remembered.
    pub(crate) fn remember(
        &mut self,
        token: Token,
        client: ClientId,
        limit: usize,
        is_connected: impl Fn(ClientId) -> bool,
    ) {
        if self.0.len() >= limit {
            let Some(gone) = self.0.iter().position(|(_, client)| !is_connected(*client)) else {
                return;
            };
            self.0.remove(gone);
        }
        self.0.push_back((token, client));
    }
}
