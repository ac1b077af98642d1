//! JSON Web Tokens (RFC 7519).

use super::{AuthError, AuthRequest, Authenticated, Authenticator, Identity};
use crate::reload::Reloaded;
use core::fmt;
use jsonwebtoken::{
    DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, JwkSet},
};
use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// Lets in who has a token that was signed with a key of a file.
///
/// A token must have the claim `exp`; `nbf` counts if it is there. With `sub` a client is that user
/// ([`Identity::user`]). With `room`, an id or a list of ids, it may join those rooms alone; an id that ends
/// with `*` is any that begins so. The signature's algorithm must be one of the key's kind.
pub struct JwtAuthenticator {
    file: JwtKeyFile,
    options: JwtOptions,
    keys: Reloaded<Keys>,
}

/// A file with keys. Which kind it has is not guessed: a public key that was taken for a secret would let
/// everybody sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeyFile {
    /// A JSON Web Key Set, or a public key of RSA, EC or Ed25519 in PEM.
    Keys(PathBuf),
    /// A secret of 32 bytes or more for HMAC, without the end of its last line.
    Secret(PathBuf),
}

impl JwtKeyFile {
    fn path(&self) -> &Path {
        match self {
            Self::Keys(path) | Self::Secret(path) => path,
        }
    }
}

/// What tokens must say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JwtOptions {
    /// One of these must be in `aud`. If none are given, tokens that have `aud` are refused: they are for
    /// others.
    pub audiences: Vec<String>,
    /// One of these must be `iss`. If none are given, any may be.
    pub issuers: Vec<String>,
}

/// Why there are no keys.
#[derive(Debug)]
#[non_exhaustive]
pub enum JwtError {
    /// The file cannot be read.
    Read(io::Error),
    /// What is in the file is no key: what is expected.
    Malformed,
    /// A secret is shorter than 32 bytes, so that it could be guessed.
    ShortSecret,
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read(_) => "cannot read the file with the keys of tokens",
            Self::Malformed => {
                "the file with the keys of tokens must be a JSON Web Key Set, or a public key of RSA, EC or \
                 Ed25519 in PEM"
            }
            Self::ShortSecret => "the secret of tokens must have 32 bytes or more",
        })
    }
}

impl Error for JwtError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Malformed | Self::ShortSecret => None,
        }
    }
}

/// Keys, with their ids if they have some.
struct Keys(Vec<(Option<String>, DecodingKey)>);

#[derive(serde::Deserialize)]
struct Claims {
    sub: Option<String>,
    room: Option<RoomClaim>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum RoomClaim {
    One(String),
    Some(Vec<String>),
}

impl JwtAuthenticator {
    /// With the keys of a file, which is read again when it has changed.
    ///
    /// # Errors
    ///
    /// If there are no keys in it.
    pub fn open(file: JwtKeyFile, options: JwtOptions) -> Result<Self, JwtError> {
        let keys = Keys::read(&file)?;
        let keys = Reloaded::new("the file with the keys of tokens", &[file.path()], keys);
        Ok(Self {
            file,
            options,
            keys,
        })
    }

    fn check(&self, request: AuthRequest<'_>) -> Result<Identity, AuthError> {
        let Some(token) = request.credential else {
            return Err(AuthError::unauthorized("a token is needed"));
        };
        let claims = self.claims(token).ok_or_else(|| {
            // No more: it would help whoever makes up tokens.
            AuthError::unauthorized("the token is not valid, has expired, or is for others")
        })?;
        if claims.room.is_some_and(|rooms| !rooms.allow(request.room)) {
            return Err(AuthError::forbidden("the token is for other rooms"));
        }
        Ok(claims.sub.map_or_else(Identity::anonymous, Identity::user))
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let id = decode_header(token).ok()?.kid;
        let keys = self.keys.get(|| Keys::read(&self.file));
        let mut keys = keys.0.iter().filter(|(key_id, _)| match (key_id, &id) {
            (Some(key_id), Some(id)) => key_id == id,
            _ => true,
        });
        keys.find_map(|(_, key)| {
            let mut validation = Validation::new_for_family(key.family());
            validation.validate_nbf = true;
            let mut required = vec!["exp"];
            if !self.options.audiences.is_empty() {
                validation.set_audience(&self.options.audiences);
                required.push("aud");
            }
            if !self.options.issuers.is_empty() {
                validation.set_issuer(&self.options.issuers);
                required.push("iss");
            }
            validation.set_required_spec_claims(&required);
            let decoded = decode::<Claims>(token, key, &validation);
            decoded.ok().map(|decoded| decoded.claims)
        })
    }
}

impl Authenticator for JwtAuthenticator {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> Authenticated<'a> {
        Box::pin(async move { self.check(request) })
    }
}

/// Without the keys.
impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("file", &self.file)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl RoomClaim {
    fn allow(&self, room: &str) -> bool {
        let allowed = match self {
            Self::One(one) => core::slice::from_ref(one),
            Self::Some(some) => some,
        };
        allowed
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => room.starts_with(prefix),
                None => allowed == room,
            })
    }
}

/// Shorter ones could be guessed.
const MIN_SECRET_BYTES: usize = 32;

impl Keys {
    fn read(file: &JwtKeyFile) -> Result<Self, JwtError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let bytes = fs::read(file.path()).map_err(JwtError::Read)?;
        if let JwtKeyFile::Secret(_) = file {
            return Self::of_secret(&bytes);
        }
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        match text.trim_ascii_start().starts_with(b"{") {
            true => Self::of_set(text),
            false => Self::of_pem(text),
        }
    }

    fn of_pem(text: &[u8]) -> Result<Self, JwtError> {
        let kinds = [
            DecodingKey::from_rsa_pem,
            DecodingKey::from_ec_pem,
            DecodingKey::from_ed_pem,
        ];
        let key = kinds.iter().find_map(|of_pem| of_pem(text).ok());
        Ok(Self(vec![(None, key.ok_or(JwtError::Malformed)?)]))
    }

    fn of_secret(bytes: &[u8]) -> Result<Self, JwtError> {
        let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(JwtError::ShortSecret);
        }
        Ok(Self(vec![(None, DecodingKey::from_secret(secret))]))
    }

    /// Fails if it is no set, or has no key that can be used.
    fn of_set(json: &[u8]) -> Result<Self, JwtError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| JwtError::Malformed)?;
        let mut keys = Vec::new();
        for jwk in &set.keys {
            let Ok(key) = DecodingKey::from_jwk(jwk) else {
                continue;
            };
            let is_secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
            let is_short = |secret: &[u8]| secret.len() < MIN_SECRET_BYTES;
            if is_secret && key.try_get_as_bytes().is_ok_and(is_short) {
                return Err(JwtError::ShortSecret);
            }
            keys.push((jwk.common.key_id.clone(), key));
        }
        match keys.is_empty() {
            true => Err(JwtError::Malformed),
            false => Ok(Self(keys)),
        }
    }
}
