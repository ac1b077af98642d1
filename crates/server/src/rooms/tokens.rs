//! Client ids by token, for clients that come back.

use core::fmt;
use sha2::{Digest, Sha256};
use stateroom_wasmi_host::ClientId;
use std::collections::VecDeque;

/// A keyed hash of a token. The key is secret, so that neither the timing of a comparison nor what is
/// stored of a room reveals the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(pub(super) [u8; Self::BYTES]);

impl TokenHash {
    pub(super) const BYTES: usize = 16;
}

/// Hashes tokens with a key.
#[derive(Clone)]
pub(super) struct TokenHasher {
    key: [u8; 32],
    /// That of the key.
    digest: Sha256,
}

/// Without the key.
impl fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHasher")
    }
}

impl TokenHasher {
    pub(super) fn new(key: [u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(key);
        Self { key, digest }
    }

    pub(super) const fn key(&self) -> [u8; 32] {
        self.key
    }

    pub(super) fn hash(&self, token: &str) -> TokenHash {
        self.digest("token ", token)
    }

    /// Hashes the secret of a session.
    pub(super) fn hash_session(&self, secret: &str) -> TokenHash {
        self.digest("session ", secret)
    }

    fn digest(&self, kind: &str, text: &str) -> TokenHash {
        // Of the digest, only a part is known to anybody: it cannot be continued.
        let digest = self.digest.clone().chain_update(kind).chain_update(text);
        let digest = digest.finalize();
        let mut hash = TokenHash([0; TokenHash::BYTES]);
        hash.0.copy_from_slice(&digest[..TokenHash::BYTES]);
        hash
    }
}

/// The tokens of a room, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens(VecDeque<(TokenHash, ClientId)>);

impl Tokens {
    pub(super) fn client(&self, token: TokenHash) -> Option<ClientId> {
        self.0
            .iter()
            .find(|(known, _)| *known == token)
            .map(|(_, client)| *client)
    }

    pub(super) fn hash_of(&self, client: ClientId) -> Option<TokenHash> {
        self.0
            .iter()
            .find(|(_, known)| *known == client)
            .map(|(token, _)| *token)
    }

    pub(super) fn contains(&self, client: ClientId) -> bool {
        self.hash_of(client).is_some()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (TokenHash, ClientId)> {
        self.0.iter().copied()
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
