//! Client ids by token, for clients that come back.

use core::hash::BuildHasher;
use stateroom_wasmi_host::ClientId;
use std::{collections::VecDeque, hash::RandomState};

/// A keyed hash of a token. The keys are secret to this process, so that neither the timing of a
/// comparison nor a memory dump reveals the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenHash([u64; 2]);

/// Hashes tokens with random keys.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenHasher([RandomState; 2]);

impl TokenHasher {
    pub(super) fn hash(&self, token: &str) -> TokenHash {
        TokenHash(self.0.each_ref().map(|key| key.hash_one(token)))
    }
}

/// The tokens of a room, newest last.
#[derive(Debug, Default)]
pub(super) struct Tokens(VecDeque<(TokenHash, ClientId)>);

impl Tokens {
    pub(super) fn client(&self, token: TokenHash) -> Option<ClientId> {
        self.0
            .iter()
            .find(|(known, _)| *known == token)
            .map(|(_, client)| *client)
    }

    pub(super) fn contains(&self, client: ClientId) -> bool {
        self.0.iter().any(|(_, known)| *known == client)
    }

    /// Stores the token of a client. At `limit`, it evicts the oldest whose client is not
    /// connected; if all are connected, the new token is not stored.
    pub(super) fn insert(
        &mut self,
        token: TokenHash,
        client: ClientId,
        limit: usize,
        is_connected: impl Fn(ClientId) -> bool,
    ) {
        if self.0.len() >= limit {
            let Some(evicted) = self.0.iter().position(|(_, client)| !is_connected(*client)) else {
                return;
            };
            self.0.remove(evicted);
        }
        self.0.push_back((token, client));
    }
}
